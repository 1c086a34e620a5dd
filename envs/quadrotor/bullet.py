"""What differs where pybullet integrates the body (`Physics.PYB` and its variants).

The original applies its forces in the frames of the drone's links, which Bullet knows as they
were before the last step: thrust acts along the axes of one step ago. Reading the links' heights
for the ground effect brings the frames up to date, so forces that follow act along today's.
Bullet also damps a multi-body. Measured with pybullet 3.2.7: equal to 1e-10 per step.
"""

import jax
import jax.numpy as jnp

from fastrl.envs.quadrotor import forces
from fastrl.envs.quadrotor import vectors as v
from fastrl.envs.quadrotor.drones import Air, Drone, Motors
from fastrl.envs.quadrotor.forces import Body, Wrench
from fastrl.envs.quadrotor.vectors import Quaternion, Vector
from fastrl.types import Array, Scalar


def wrench(
    body: Body, frame: Quaternion, old_rpm: Motors, rpm: Motors, drone: Drone, air: Air
) -> Wrench:
    """Like `forces.wrench`, with thrust along the axes of `frame`."""
    axes, late = v.axes(body.attitude), v.axes(frame)
    up_to_date = air.ground_effect > 0.0
    after = jax.tree.map(lambda new, old: jnp.where(up_to_date, new, old), axes, late)

    thrusts = [drone.thrust_coefficient * r * r for r in rpm]
    effect = forces.ground_effect(thrusts, body, axes, drone)
    effect = [air.ground_effect * e for e in effect]
    push = v.scale(forces.drag(body.velocity, old_rpm, drone, air.wind), air.drag)
    force = v.add(
        v.scale(late.z, sum(thrusts)),
        v.scale(axes.z, sum(effect)),
        v.scale(after.z, air.downwash * forces.downwash(body.position, drone)),
        v.to_world(after, v.to_body(axes, push)),
        v.scale(body.velocity, _damping(body.velocity, air.linear_damping) * drone.mass),
    )

    along = v.to_body(axes, late.z)  # the thrust's direction, about z but for a step's turn
    x, y = forces.levers(thrusts, drone)
    more_x, more_y = forces.levers(effect, drone)
    around = v.scale(along, forces.around(rpm, drone))
    momentum = v.times(drone.inertia, body.rates)
    torque = v.add(
        Vector(x * along.z + more_x, y * along.z + more_y, -y * along.y - x * along.x),
        around,
        v.scale(momentum, _damping(body.rates, air.angular_damping)),
    )
    return Wrench(force, torque)


def _damping(velocity: Vector, damping: Scalar) -> Array:
    """Per unit of momentum."""
    return -damping * (1.0 + v.norm(velocity))
