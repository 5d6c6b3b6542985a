"""Interactly's assistants: about 5 KB of configuration, the receiver's own credentials included."""

from typing import Any

import msgspec

from pipeline.simulate.traffic.chance import Dice, encode

_PROMPT = (
    "You are a voice assistant for {name}, located at {street}. Your name is Rachel. The hours are 8 AM to 5 PM "
    "daily, but they are closed on Sundays. The phone number is {phone}.\n\nToday's date is {{{{date}}}}.\n"
    "This is your serial number {{{{serial_number}}}}; when they ask for it, say it digit by digit.\n\n"
    "You are tasked with answering questions about the business and with booking appointments. If they wish to book, "
    "gather what is needed in a friendly and efficient manner:\n\n1. Ask for their full name.\n2. Ask for their mobile "
    "number.\n3. Ask for their age.\n4. Ask for the purpose of the appointment.\n5. Ask for the preferred date and "
    "time.\n6. Then finally ask for their date of birth.\n7. Confirm the details with the caller, and then book.\n\n"
    "Knowledge base:\nIf any questions are asked that the knowledge base answers, answer them from it and from "
    "nothing else.\n- Keep all your responses short and simple, in casual language. Don't ramble too long.\n"
    "- Never give medical advice; offer a call back by a nurse instead.\n- If they are upset, apologise once and offer "
    "to connect them with the front desk.\n- If they speak another language that you know, follow them.\n\n"
    "Once the appointment is booked, do not forget to ask if they need anything else. If not, gracefully end the "
    "conversation by saying 'Goodbye'."
)
_SUMMARY = (
    "You are an expert note-taker. You will be given a transcript of a call. Summarise the call in two or three "
    "sentences. DO NOT return anything except the summary."
)
_EVALUATION = (
    "You are an expert call evaluator. You will be given a transcript of a call and the system prompt of the AI "
    "participant. Determine if the call was successful based on the objectives inferred from the system prompt. "
    "DO NOT return anything except the result."
)
_EXTRACTION = (
    "You are an expert data extractor. You will be given a transcript of a call. Extract structured data per the "
    "JSON Schema. DO NOT return anything except the structured data."
)


class Assistant(msgspec.Struct):
    """One assistant of one team, its configuration encoded once and for all."""

    team_id: str
    assistant_id: str
    number: str
    full: msgspec.Raw
    brief: msgspec.Raw


def make_assistant(dice: Dice, team_id: str, name: str) -> Assistant:
    """An assistant with a key and secrets of its own."""
    assistant_id, number = dice.hex(24), dice.phone()
    brief = {"_id": assistant_id, "name": f"{name} - main", "welcomeMessage": f"Welcome to {name}!!"}
    full = (
        brief
        | _conversation(dice, name, number)
        | {"assistantAnalysis": _analysis(), "assistantServer": _server(dice)}
    )
    full["config"] = {"speech": {"stt": _hearing(), "ttsData": [_voice(dice)]}}
    return Assistant(team_id, assistant_id, number, msgspec.Raw(encode(full)), msgspec.Raw(encode(brief)))


def _conversation(dice: Dice, name: str, number: str) -> dict[str, Any]:
    street = f"{dice.randint(10, 990)} North Face Place, Anaheim, California"
    return {
        "welcomeMessageMode": "automatic",
        "welcomeMessageInterruptionsEnabled": False,
        "endCallMessage": "",
        "endCallToolDescription": "",
        "endCallPhrases": ["Goodbye", "Bye"],
        "bargeInEnabled": True,
        "callForwardData": [],
        "assistantKnowledgeBaseIds": [],
        "assistantToolIds": [],
        "assistantProvider": dice.one(("gemini", "openai", "anthropic")),
        "assistantModel": "gemini-3-flash-preview",
        "assistantLLMUrl": "",
        "assistantSystemPrompt": _PROMPT.format(name=name, street=street, phone=number),
        "assistantTemperature": 0,
        "assistantMaxTokens": 256,
        "assistantResponseSplitter": "",
        "assistantBackchannelingEnabled": False,
    }


def _analysis() -> dict[str, Any]:
    def task(prompt: str, enabled: bool = True, **more: Any) -> dict[str, Any]:
        return {
            "enabled": enabled,
            "prompt": prompt,
            "provider": "",
            "model": "",
            "timeoutInSecs": 30,
            **more,
        }

    properties = {
        "Name": {"type": "string", "description": "Name of the patient"},
        "phone number": {"type": "string", "description": "phone number of a patient"},
        "serial_number": {"description": "this is the serial number", "type": "number"},
    }
    schema = {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
        "$defs": {},
    }
    scale = "A scale of Excellent, Good, Fair, Poor."
    return {
        "summary": task(_SUMMARY),
        "successEvaluation": task(_EVALUATION, rubric="DescriptiveScale", rubricDescription=scale),
        "structuredData": task(_EXTRACTION, schema=schema),
        "guardrails": task("", enabled=False, metrics=[]),
        "phiRedaction": task(""),
        "callbackUrl": "http://127.0.0.1:8506/internal/v1/conversations/analysis",
    }


def _server(dice: Dice) -> dict[str, Any]:
    return {
        "enabled": True,
        "url": "https://hooks.example.com/webhooks/interactly",
        "timeoutSeconds": 20,
        "secret": dice.hex(24),
        "headers": {"Authorization": f"Bearer {dice.hex(24)}"},
        "messages": ["conversation-update", "status-update", "end-of-call-report", "hang", "error"],
    }


def _hearing() -> dict[str, Any]:
    options = {
        "model": "nova-3",
        "punctuate": True,
        "endpointing": 10,
        "smart_format": True,
        "numerals": True,
        "no_delay": True,
        "eagerEotThreshold": 0.5,
        "eotThreshold": 0.7,
        "eotTimeoutMs": 5000,
    }
    head = {"vendor": "deepgram", "language": "en-US", "languages": ["en-US", "hi"]}
    return head | {"profanityFilter": True, "interim": True, "hints": [], "deepgramOptions": options}


def _voice(dice: Dice) -> dict[str, Any]:
    config = {
        "modelId": "eleven_flash_v2",
        "modelName": "Eleven Flash v2",
        "stability": 0.5,
        "similarityBoost": 0.8,
        "speakerBoost": True,
        "applyTextNormalization": False,
        "styleExaggeration": 0,
        "optimizeStreamingLatency": 0,
        "seed": None,
        "speed": 1,
    }
    head = {"vendor": "eleven-labs", "language": "en-US", "voice": dice.hex(20), "voiceName": "Nava"}
    return head | {"default": True, "config": config}
