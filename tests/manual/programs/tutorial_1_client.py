from hisock import connect, utils

# This is a bit tricky - This will only work on the same computer
# running the server, as it gets the same IP (unless you port forward)
client = connect((utils.get_local_ip(), 36969))

while True:
    client.update()
