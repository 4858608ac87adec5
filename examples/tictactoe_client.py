"""Play tictactoe_server.py: shows what the server says, asks when it asks.

Run:  python tictactoe_client.py [HOST PORT]
"""

import sys

from hisock import ClientDisconnected, connect

host, port = sys.argv[1:] or ("127.0.0.1", 6969)

client = connect((host, int(port)))
questions = []  # what the server asks, until we have answered
results = []  # how the game ended


@client.on("note")
def note(text: str):
    print(text)


@client.on("board")
def board(squares: list):
    rows = [" | ".join(squares[start : start + 3]) for start in (0, 3, 6)]
    print("\n" + "\n--+---+--\n".join(rows) + "\n")


@client.on("your_move")
def your_move(question: str):
    questions.append(question)


@client.on("game_over")
def game_over(result: str):
    results.append(result)


with client:
    try:
        while not results:
            client.update()  # waits until at least one handler ran
            while questions:
                client.send("move", input(questions.pop()).strip())
        print(results[0])
    except (EOFError, KeyboardInterrupt):
        print("You have left the game.")
    except ClientDisconnected:
        print("The server has gone.")
