from hisock import start_server, utils

server = start_server((utils.get_local_ip(), 36969)) # Haha funny

while True:
    server.run()
