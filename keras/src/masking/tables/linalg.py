"""Rules of `keras.ops.linalg`."""

from keras.src.masking.rules import batch as b
from keras.src.masking.rules import reduce as r
from keras.src.ops import carry
from keras.src.ops import linalg as MODULE

RULES = {
    "cholesky": b.batch_only(b.MATRIX),
    "cholesky_inverse": b.cholesky_inverse,
    "det": b.batch_only(b.MATRIX),
    "eig": b.batch_only(b.MATRIX),
    "eigh": b.batch_only(b.MATRIX),
    "inv": b.batch_only(b.MATRIX),
    "lstsq": b.refused(
        "It takes one matrix, without a batch. Fill both operands with 0: an "
        "equation of zeros takes no part."
    ),
    "lu_factor": b.batch_only(b.MATRIX),
    "matrix_power": b.batch_only(b.MATRIX),
    "matrix_rank": b.batch_only(b.MATRIX),
    "jvp": carry.by_function,
    "norm": r.norm,
    "pinv": b.batch_only(b.MATRIX),
    "qr": b.batch_only(b.MATRIX),
    "solve": b.batch_only(b.solve),
    "solve_triangular": b.batch_only(b.solve),
    "svd": b.batch_only(b.MATRIX),
}

NESTS = {"jvp"}

ELSEWHERE = {}
