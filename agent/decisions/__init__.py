"""Every decision Rollway takes, pure: `step(state, event, now) -> Decision(state, actions)` over frozen structs.

The shell stores the state before it performs the actions, in their order; every action may be performed twice. No
clock, no randomness, no I/O, no await: the simulator runs the same functions as production does.
"""
