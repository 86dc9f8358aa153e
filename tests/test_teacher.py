import pytest
import torch
from torch import nn

from jepa_utils.runtime import InputError
from jepa_utils.teacher import averaged, follow


def network():
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))


@pytest.mark.parametrize("momentum", [0.0, 0.3, 0.99, 1.0])
def test_the_teacher_is_the_weighted_mean_computed_by_hand(momentum):
    student = network()
    teacher, before = averaged(student), [p.detach().double().clone() for p in student.parameters()]
    for p in student.parameters():
        nn.init.normal_(p)
    for _ in range(2):
        follow(teacher, student, momentum)
    for own, old, new in zip(teacher.parameters(), before, student.parameters(), strict=True):
        by_hand = momentum**2 * old + (1 - momentum**2) * new.detach().double()
        torch.testing.assert_close(own.double(), by_hand, rtol=1e-5, atol=1e-6)


def test_the_teacher_takes_no_gradient_and_leaves_the_student_alone():
    student = network()
    teacher, kept = averaged(student), [p.detach().clone() for p in student.parameters()]
    loss = (student(torch.randn(5, 3)) - teacher(torch.randn(5, 3))).square().sum()
    loss.backward()
    follow(teacher, student, 0.5)
    assert all(p.grad is None for p in teacher.parameters())
    assert all(torch.equal(a, b) for a, b in zip(student.parameters(), kept, strict=True))
    assert all(p.requires_grad for p in student.parameters())


def test_running_statistics_stay_the_teachers_own():
    student = network()
    teacher = averaged(student)
    student(torch.randn(5, 3) + 7)
    follow(teacher, student, 0.5)
    assert teacher[1].running_mean.eq(0).all()


@pytest.mark.parametrize("momentum", [-0.1, 1.1, float("nan"), "slow", None])
def test_a_momentum_that_is_no_share_is_refused_by_name(momentum):
    with pytest.raises(InputError, match="momentum"):
        follow(network(), network(), momentum)
