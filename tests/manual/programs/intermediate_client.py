# What the intermediate tutorial describes: names, groups and all five send methods.
from hisock import connect, utils

client = connect((utils.get_local_ip(), 36969), name="Ann", group="Lobby 1")

@client.on("one")
def one(msg):
    print("one:", msg.decode())

@client.on("all")
def everybody(msg):
    print("all:", msg.decode())

@client.on("lobby")
def lobby(msg):
    print("lobby:", msg.decode())
    client.send("more", b"some more information")
    print("raw:", client.recv_raw().decode())
    print("raw:", client.recv_raw().decode())

client.send("ready", b"")

while True:
    client.update()
