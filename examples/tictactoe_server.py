"""Tic-tac-toe: pairs players, and alone decides which moves are allowed.

Run:  python tictactoe_server.py [HOST PORT]
"""

import sys
from contextlib import suppress

from hisock import iptup_to_str, start_server

host, port = sys.argv[1:] or ("127.0.0.1", 6969)

LINES = ["123", "456", "789", "147", "258", "369", "159", "357"]  # three in a row

server = start_server((host, int(port)))
waiting = []  # the player who has no opponent yet
games = {}  # player: the board and both players, the one to move first


def ask(player, board, problem=""):
    server.send_client(player, "board", board)
    server.send_client(player, "your_move", f"{problem}Your move (1-9): ")


def finish(player, result):
    games.pop(player)
    server.send_client(player, "game_over", result)


@server.on("join")
def join(client):
    waiting.append(client["ip"])  # an address is the same for the whole visit
    if len(waiting) == 2:
        board, players = list("123456789"), waiting.copy()
        waiting.clear()
        for player, mark in zip(players, "XO", strict=True):
            games[player] = board, players
            server.send_client(player, "note", f"The game begins. You are {mark}.")
        ask(players[0], board)
    else:
        server.send_client(client, "note", "Waiting for an opponent ...")


@server.on("move")
def move(client, square: str):
    player = client["ip"]
    board, players = games.get(player, ([], [None]))
    if player != players[0]:
        server.send_client(player, "note", "It is not your turn.")
    elif not square.isdigit() or square not in board:
        ask(player, board, f"{square!r} is not a free square. ")
    else:
        mark = "X" if board.count("X") == board.count("O") else "O"
        board[board.index(square)] = mark
        players.reverse()
        judge(board, players, mark)


def judge(board, players, mark):
    won = any(all(board[int(n) - 1] == mark for n in line) for line in LINES)
    drawn = not any(square.isdigit() for square in board)
    if not won and not drawn:
        return ask(players[0], board)
    results = ["You lose.", "You win!"] if won else ["A draw."] * 2
    for player, result in zip(players, results, strict=True):
        server.send_client(player, "board", board)
        finish(player, result)


@server.on("leave")
def leave(client):
    player = client["ip"]
    if player in waiting:
        waiting.remove(player)
    elif player in games:
        _, players = games.pop(player)
        for opponent in players:
            if opponent != player:
                finish(opponent, "Your opponent has left. You win!")


with server, suppress(KeyboardInterrupt):
    print(f"Serving at {iptup_to_str(server.addr)}", flush=True)
    while True:
        server.run()
