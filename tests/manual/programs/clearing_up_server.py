# Server
from hisock import start_server, utils

server = start_server((utils.get_local_ip(), 36969))

# Not in the manual's listing: something must be sent for the handlers to print.
@server.on("join")
def answer_join(clt_data):
    server.send_client(clt_data['ip'], "another_random_command", b"from the server")

@server.on("random_command")
def random_cmd_handler(clt_data, message):
    # clt_data is a dict of client information
    # message is the data content, in bytes

    print(message)

while True:
    server.run()
