# What the intermediate tutorial describes: names, groups and all five send methods.
from hisock import start_server, utils

server = start_server((utils.get_local_ip(), 36969))

@server.on("join")
def clt_join(clt_data):
    print(f"{clt_data['name']} is in the lobby {clt_data['group']}")

@server.on("ready")
def clt_ready(clt_data, message):
    # By name, "without knowing the IP"
    server.send_client(clt_data['name'], "one", b"send_client")
    server.send_all_clients("all", b"send_all_clients")
    server.send_group(clt_data['group'], "lobby", b"send_group")

@server.on("more")
def clt_more(clt_data, message):
    # The client sent back some more information: no command needed for the answer
    server.send_client_raw(clt_data['name'], b"send_client_raw")
    server.send_group_raw(clt_data['group'], b"send_group_raw")

while True:
    server.run()
