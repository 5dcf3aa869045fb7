"""The benchmark: contenders, scenarios, slices and the report. Started by scripts/bench, which brings PostgreSQL and the programs.

A *contender* is a pooler under test, running for the whole of the run. A *scenario* is one kind of load. A *slice* is one scenario on
one contender for a few seconds. In each round every scenario is run on every contender in random order, and figures are compared
within the round, so that a machine that grows slower or faster during the run does not favour anyone.
"""
