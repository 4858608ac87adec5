"""The rules of the game, for server.py: nothing in here knows of a network."""

from itertools import count
from math import hypot
from random import choice, randrange

WIDTH, HEIGHT, EDGE = 1600, 900, 30
REACH = 44  # how near a spark has to be
PUSH, DRAG = 1.6, 0.9  # of each step; together they make the highest speed

numbers = count(1)
players = {}  # who plays: what every page draws of them


def new_spark():
    where = randrange(40, WIDTH - 40), randrange(40, HEIGHT - 40)
    return [next(numbers), *where, choice([1, 1, 1, 1, 1, 1, 5])]


sparks = [new_spark() for _ in range(24)]


def enter(who, number, name):
    where = {"x": randrange(200, WIDTH - 200), "y": randrange(200, HEIGHT - 200)}
    still = {"vx": 0.0, "vy": 0.0, "push": (0.0, 0.0), "here": True}
    players[who] = {"id": number, "name": name, "score": 0} | where | still


def steer(who, x, y):
    """Push a player in a direction; a length of 1 or more is all that it can."""
    # Strangers may send any number. This order of arguments stops even NaN.
    x, y = min(1.0, max(-1.0, x)), min(1.0, max(-1.0, y))
    length = max(1.0, hypot(x, y))
    players[who]["push"] = x / length, y / length


def step():
    """Move everything by a 30th of a second."""
    for me in players.values():
        x, y = me["push"] if me["here"] else (0.0, 0.0)
        me["vx"], me["vy"] = me["vx"] * DRAG + x * PUSH, me["vy"] * DRAG + y * PUSH
        me["x"] = min(WIDTH - EDGE, max(EDGE, me["x"] + me["vx"]))
        me["y"] = min(HEIGHT - EDGE, max(EDGE, me["y"] + me["vy"]))
        gather(me)


def gather(me):
    for place, (_, x, y, worth) in enumerate(sparks):
        if hypot(me["x"] - x, me["y"] - y) < REACH:
            me["score"] += worth
            sparks[place] = new_spark()


def state():
    shown = {"tick": next(numbers), "size": (WIDTH, HEIGHT), "sparks": sparks}
    return shown | {"players": list(players.values())}
