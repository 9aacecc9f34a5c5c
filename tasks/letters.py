"""Scoring of our own for the demo zoo: a task that counts right letters, and a constraint on answers."""

from __future__ import annotations


def share_of_right_letters(model, items):
    """For each item the share of the answer's letters that are right, where exact match would only say yes or no."""
    answers = model.generate([item["question"] for item in items], max_new_tokens=8, stop=["\n"])
    return [
        sum(ours == right for ours, right in zip(answer, item["answer"], strict=False)) / len(item["answer"])
        for answer, item in zip(answers, items, strict=True)
    ]


def repeats_a_letter(answers):
    """1 for each answer in which a letter occurs twice, else 0: merges that confuse the skills say letters again."""
    return [float(len(set(answer)) < len(answer)) for answer in answers]
