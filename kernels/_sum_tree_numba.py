"""The sum tree's loops for numba: to the same bits as `sum_tree.py`, with no scatter to pay.

Plain Python in numba's subset; `_numba_handler.py` compiles it.  `starts` is `sum_tree.levels`.
Levels are the outer loop, so that the processor waits for the rows of several leaves at once.
"""

from collections.abc import Callable

import numpy as np

WIDTH = 8  # children of a node


def write(starts: tuple[int, ...], capacity: int) -> Callable[..., None]:
    depth, first = len(starts), np.array(starts, np.uint32)
    width = np.uint32(WIDTH)

    def sum_tree_write(_, indices, priorities, nodes):
        # `nodes` shares the memory of the first argument.
        n = len(indices)
        node = np.empty(n, np.uint32)
        count = 0
        for i in range(n):
            if indices[i] >= 0 and indices[i] < capacity:
                leaf = np.uint32(indices[i])
                nodes[first[depth - 1] + leaf // width, leaf % width] = priorities[i]
                node[count] = leaf
                count += 1
        for level in range(depth - 1, 0, -1):
            for i in range(count):
                parent = node[i] // width
                row = nodes[first[level] + parent]
                a, b = row[0] + row[4], row[1] + row[5]
                c, d = row[2] + row[6], row[3] + row[7]
                nodes[first[level - 1] + parent // width, parent % width] = (a + c) + (b + d)
                node[i] = parent

    return sum_tree_write


def search(starts: tuple[int, ...]) -> Callable[..., None]:
    depth, first = len(starts), np.array(starts, np.uint32)
    zero = np.float32(0.0)

    def sum_tree_search(nodes, mass, leaves, priorities):
        n = len(mass)
        left = np.empty(n, np.float32)
        for i in range(n):
            left[i] = max(mass[i], zero)
            leaves[i] = 0
        for level in range(depth):
            for i in range(n):
                row = nodes[first[level] + np.uint32(leaves[i])]
                upto = zero  # the running sum, and what it was before it last rose
                before = zero
                child = 0
                for j in range(WIDTH):
                    following = upto + row[j]
                    rises = (following > upto) and not (upto > left[i])
                    child = j if rises else child
                    before = upto if rises else before
                    upto = following
                left[i] = left[i] - before
                leaves[i] = leaves[i] * WIDTH + child
                priorities[i] = row[child]

    return sum_tree_search
