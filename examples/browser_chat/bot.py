"""A Python program among the browsers: it greets, and rolls dice for who asks.

Run:  python bot.py [HOST PORT [ROOM]]
"""

import sys
from random import randint

from hisock import connect

host, port, *rest = sys.argv[1:] or ("127.0.0.1", 6969)
room = rest[0] if rest else "Lobby"
client = connect((host, int(port)), name="Dice", group=room, wait=10)


@client.on("line")
def line(line: dict):
    who, words = line["who"], line["text"].split()
    if not who and words[1:] == ["came", "in"] and words[0] != "Dice":
        client.send("say", f"Hello {words[0]}! Say “roll 20” and I will.")
    elif who != "Dice" and words[:1] == ["roll"] and len(words) == 2:
        sides = int(words[1]) if words[1].isdecimal() else 6
        client.send("say", f"{who} rolls {randint(1, max(1, sides))} of {sides}")


print(f"In {room}", flush=True)
with client:
    client.run_forever()  # until Ctrl-C
