"""A count per transaction, free of what starting, logging in and leaving cost: the difference between a long and a short run."""

from .scenarios import PROTOCOLS, Load

CLIENTS = 64
LOADS = [Load(f"select1-{protocol}-{CLIENTS}", CLIENTS, protocol, "select 1") for protocol in PROTOCOLS]


def per_transaction(count, short, long):
    """`count(transactions_each)` -> (transactions, {name: number}) of a whole run; both run lengths are per client."""
    few, at_few = count(short)
    many, at_many = count(long)
    if many <= few:
        return {}
    return {name: (number - at_few.get(name, 0)) / (many - few) for name, number in at_many.items()}
