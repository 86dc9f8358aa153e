"""The exercises' checks accept what is right in another way, and say of likely mistakes what is wrong."""

import ast
import inspect
import textwrap
from functools import cache

import pytest
import torch
from attempts import ATTEMPTS
from series import PATHS, namespace, read, solutions, tagged


def exercises():
    """(notebook, function) -> (first line of the stub, its check): all that learners are asked to write."""
    found = {}
    for path in PATHS:
        notebook = read(path)
        for stub, check in zip(tagged(notebook, "exercise"), tagged(notebook, "check"), strict=True):
            for node in ast.parse(stub).body:
                first = "\n".join(stub.splitlines()[node.lineno - 1 : node.body[0].lineno - 1])
                found[path.stem, node.name] = first, check
    return found


EXERCISES = exercises()


def attempts(kind):
    return [pytest.param(notebook, function, attempt, id=f"{notebook.split('_')[0]}-{function}-{name}")
            for notebook, functions in ATTEMPTS.items() for function, kinds in functions.items()
            for name, attempt in kinds[kind].items()]


@cache
def solved(notebook):
    """What a notebook defines, with the solutions in place of the stubs."""
    (path,) = [path for path in PATHS if path.stem == notebook]
    names = namespace(read(path), "taught")
    for solution in solutions(read(path)):
        exec(solution, names)
    return names


def said(notebook, function, body, capsys):
    """What the check prints of an attempt."""
    first, check = EXERCISES[notebook, function]
    names = dict(solved(notebook))
    exec(first + "\n" + textwrap.indent(inspect.cleandoc(body), "    "), names)
    torch.manual_seed(0)
    capsys.readouterr()
    exec(check, names)
    return capsys.readouterr().out


def test_every_exercise_has_right_and_wrong_attempts():
    kept = {(notebook, name): kinds for notebook, functions in ATTEMPTS.items() for name, kinds in functions.items()}
    assert kept.keys() == EXERCISES.keys()
    assert all(kinds["right"] and kinds["wrong"] for kinds in kept.values())


@pytest.mark.parametrize(("notebook", "function", "body"), attempts("right"))
def test_what_is_right_in_another_way_passes(notebook, function, body, capsys):
    assert said(notebook, function, body, capsys) == "passed\n"


@pytest.mark.parametrize(("notebook", "function", "attempt"), attempts("wrong"))
def test_a_likely_mistake_is_told_what_is_wrong(notebook, function, attempt, capsys):
    hint, body = attempt
    answer = said(notebook, function, body, capsys)
    assert answer.startswith("not yet: ")
    assert hint in answer
