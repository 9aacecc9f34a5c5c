"""Conversations to prompts, as lm-eval renders them."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from evolve.scoring.backends.bounded_templates import TemplateOwnError, templates
from evolve.scoring.errors import TaskError
from evolve.scoring.language_model import ChatFormat

_LOG = logging.getLogger(__name__)


def render_chat(
    tokenizer: Any, messages: Sequence[Mapping[str, str]], chat: ChatFormat, add_generation_prompt: bool
) -> str:
    """Render a conversation; a template that refuses the system role gets the conversation without it.

    Args:
        tokenizer: A transformers tokenizer.
        messages: With `role` and `content`.
        chat: Which template, and its variables.
        add_generation_prompt: Whether the assistant begins its turn after it; otherwise the last message is
            the assistant's and stays open.

    Raises:
        TaskError: The tokenizer has no chat template, or it does not render the conversation.
    """
    if not tokenizer.chat_template:
        raise TaskError(
            "apply_chat_template: the tokenizer has no chat template. Set apply_chat_template: false, or "
            "give the merged model a chat template."
        )

    def render(kept: Sequence[Mapping[str, str]]) -> str:
        if not kept:
            raise TaskError("a conversation without messages")
        # As the tokenizer's own apply_chat_template does before it renders.
        conversation = [{key: value for key, value in message.items() if value is not None} for message in kept]
        arguments = {
            "chat_template": tokenizer.get_chat_template(chat.template, chat.arguments.get("tools")),
            "add_generation_prompt": add_generation_prompt,
            "continue_final_message": not add_generation_prompt,
            **tokenizer.special_tokens_map,
            **chat.arguments,
        }
        return templates.conversation(conversation, arguments)

    without_system = [message for message in messages if message["role"] != "system"]
    try:
        try:
            return render(messages)
        except TemplateOwnError:
            if len(without_system) == len(messages):
                raise
        text = render(without_system)
    except ValueError as error:
        raise TaskError(f"apply_chat_template: the chat template fails on a prompt: {error}") from error
    _LOG.warning("the chat template refuses the system role; prompts are rendered without it")
    return text
