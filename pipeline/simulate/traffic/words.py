"""What people and assistants say: enough text for payloads of a realistic size."""

from typing import Final

from pipeline.simulate.traffic.chance import Dice

NAMES: Final = (
    "Ramesh Naik",
    "Ana Lopez",
    "Tom Baker",
    "Mei Chen",
    "Ines Martin",
    "Jonas Weber",
    "Priya Shah",
)
_ASSISTANT: Final = (
    "Thank you for calling the clinic, how can I help you today?",
    "May I have your full name please?",
    "Nice to meet you. What would be a good day for the appointment?",
    "We have an opening on Thursday at ten, or on Friday at half past two. Which do you prefer?",
    "Let me check that for you, one moment please.",
    "I have put that down. Is there anything else I can do for you?",
    "What is your preferred contact method: phone call, text message or email?",
    "Our team will review your details and call you back. Have a great day!",
)
_CALLER: Final = (
    "Hi, I would like to book an appointment.",
    "Sure, that would be fine.",
    "Uh, let's do Friday then.",
    "Can you say that again? The line is not very good here.",
    "I started three years ago and left in the spring.",
    "No, that is all. Thank you.",
    "Do you also see children on Saturdays?",
    "My insurance card is in the car, give me a second.",
)


def line(dice: Dice, turn: int) -> tuple[str, str]:
    """Who speaks in this turn, and what is said."""
    return ("assistant", dice.one(_ASSISTANT)) if turn % 2 == 0 else ("user", dice.one(_CALLER))


def transcript(dice: Dice, turns: int) -> str:
    """A conversation as running text."""
    lines = (line(dice, turn) for turn in range(turns))
    return "\n".join(f"{'Agent' if who == 'assistant' else 'User'}: {said}" for who, said in lines) + "\n"
