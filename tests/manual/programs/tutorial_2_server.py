# Server
from hisock import iptup_to_str
from hisock import start_server, utils

server = start_server((utils.get_local_ip(), 36969)) # Haha funny

@server.on("join")
def clt_join(clt_data): # Of course, no message on join
    print(
        f"Cool, {iptup_to_str(clt_data['ip'])} joined!"
    ) # the IP is stored in a tuple, with a (str IP, int Port) format

while True:
    server.run()
