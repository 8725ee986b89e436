"""The functions read no mask, as the classes do not."""

from keras.src.masking.training import scoring

for _function in scoring.exported_functions(globals()):
    globals()[_function.__name__] = scoring.reads_no_mask(_function)
