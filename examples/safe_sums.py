"""Work out sums that strangers send, for basic_server.py.

eval() would run whatever Python they send. This reads the sum with Python's parser
and then calculates only what it knows.
"""

import ast
import operator

LONGEST = 100  # characters of a sum
LARGEST = 10**50  # no number on the way to the result may be larger
OPERATORS = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: operator.pow,
}


def answer(text: str) -> str:
    """The result of a sum, or in plain words why there is none."""
    if len(text) > LONGEST:
        return "Sorry, that sum is too long"
    try:
        return str(work_out(ast.parse(text.strip(), mode="eval").body))
    except SyntaxError:
        return "Sorry, that is not a sum"
    except (ValueError, ArithmeticError) as error:
        return f"Sorry, {error}"


def work_out(node: ast.expr) -> int | float:
    match node:
        case ast.Constant(value=int() | float() as number):
            result = number
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            result = -work_out(operand)
        case ast.BinOp(left=left, op=op, right=right) if type(op) in OPERATORS:
            first, second = work_out(left), work_out(right)
            if isinstance(op, ast.Pow) and abs(second) > 100:
                raise ValueError("that exponent is too large")
            result = OPERATORS[type(op)](first, second)
        case _:
            raise ValueError("only numbers and + - * / // % ** are allowed")
    if isinstance(result, complex) or not -LARGEST <= result <= LARGEST:
        raise ValueError("that number is too large, or not a real one")
    return result
