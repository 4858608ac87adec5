from hisock import connect, utils

client = connect((utils.get_local_ip(), 36969))

@client.on("another_random_command")
def handler_thing(message):
    # No clt_data, as server always sends message
    print(message)

# Not in the manual's listing: something must be sent for the handlers to print.
client.send("random_command", b"from the client")

while True:
    client.update()
