"""Names of fields that say what stands in them, whoever sends them. All in lower case.

What only one provider calls so is named in its module.
"""

from typing import Final

SECRET_FIELDS: Final = frozenset(
    {"assistantserver", "authorization", "proxy-authorization", "x-interactly-secret", "cookie", "set-cookie"}
    | {
        "secret",
        "client_secret",
        "clientsecret",
        "password",
        "passwd",
        "passphrase",
        "private_key",
        "privatekey",
    }
    | {"token", "access_token", "accesstoken", "refresh_token", "refreshtoken", "auth_token", "authtoken"}
    | {"bearer_token", "api_key", "apikey", "api-key", "x-api-key", "credentials", "authconfig"}
)
"""Payload fields that are credentials whoever sends them, in lower case."""
NUMBER_FIELDS: Final = frozenset(
    {
        "phone",
        "phonenumber",
        "phone_number",
        "phone number",
        "phone-number",
        "mobile",
        "mobilenumber",
        "msisdn",
        "e164",
    }
    | {
        "telephone",
        "callerid",
        "caller_id",
        "callernumber",
        "caller_number",
        "calleenumber",
        "customernumber",
    }
    | {"customer_number", "fromnumber", "from_number", "tonumber", "to_number", "mobile_number", "usernumber"}
)
"""Payload fields that hold a number whoever sends them, in lower case; without a plus only they tell."""
LIKELY_NUMBER_FIELDS: Final = frozenset({"from", "to", "number", "ani", "dnis", "did"})
"""Payload fields that hold a number if what is in them looks like one."""
TRANSCRIPT_FIELDS: Final = frozenset(
    {"transcript", "transcripts", "transcription", "transcriptiontext", "transcript_object", "conversation"}
    | {"utterance", "utterances", "system_prompt", "systemprompt", "dynamicvariables", "dynamic_variables"}
)
"""Payload fields that hold conversation or prompts whoever sends them, in lower case."""
PLAIN_HEADERS: Final = frozenset({"content-type", "content-length", "user-agent", "date"})
"""Request headers that say nothing of anybody, kept beside those that a provider's module asks for."""
