"""Streaming deep RL: learners that see each transition once, when it happens, and store none.

`stream_q`, `stream_sarsa`, `stream_ac` act; `stream_td` predicts, in an environment or on any
series of numbers.  They stand on `optimizers`, `networks`, `statistics` and `stream`.
"""
