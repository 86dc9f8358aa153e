import subprocess
import sys

import pytest

from jepa_utils import exercises

WRONG = "from jepa_utils import exercises\ndef check(): assert 2 + 2 == 5, 'count again'\nexercises.run(check)"


def raises(error):
    def check():
        raise error
    return check


@pytest.mark.parametrize(("check", "said"), [
    (lambda: None, "passed"),
    (raises(NotImplementedError()), "not attempted yet"),
    (raises(NotImplementedError("no kernel")), "not yet: NotImplementedError: no kernel"),  # as torch says of -mask
    (raises(AssertionError("count again")), "not yet: AssertionError: count again"),
    (raises(ZeroDivisionError("division by zero")), "not yet: ZeroDivisionError: division by zero"),
])
def test_an_attempt_is_told_how_it_stands_and_never_stops_the_notebook(check, said, capsys):
    exercises.run(check)
    assert capsys.readouterr().out == said + "\n"


def test_an_interrupt_is_no_failed_attempt():
    with pytest.raises(KeyboardInterrupt):
        exercises.run(raises(KeyboardInterrupt()))


@pytest.mark.parametrize(("option", "said"), [
    ("-O", "not checked: this Python ignores assertions"), ("-OO", "not checked: "),
    ("-B", "not yet: AssertionError: count again"),
])
def test_a_wrong_attempt_does_not_pass_where_assertions_are_ignored(option, said):
    done = subprocess.run([sys.executable, option, "-c", WRONG], capture_output=True, text=True, timeout=60)
    assert done.stdout.startswith(said), done.stderr
    assert done.stdout.count("\n") == 1
