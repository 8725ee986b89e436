"""Rules of the ops that only masked tensors need."""

from keras.src.masking.rules import inquire
from keras.src.masking.rules import scan
from keras.src.ops import masking as MODULE

RULES = {
    "filled": inquire.filled,
    "get_mask": inquire.get_mask,
    "get_values": inquire.of_values,
    "last": scan.last,
}

ELSEWHERE = {"is_masked": "Asks for the type, and gets a plain answer."}
