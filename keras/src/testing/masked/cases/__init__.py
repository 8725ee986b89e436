"""Examples and oracles for the tests of the tables, by family.

A module holds, for the rows of its families:

- `EXAMPLES`: by name of the function, lists of argument tuples, in which `T`
  stands for a tensor;
- `NAMES`: the names of the last arguments, where they are passed by name;
- `ORACLES`: by name, a function of the drawn arguments that gives the list of
  expected `(values, mask)`, the mask over all axes or None for a plain result.
  It shares no code with the rules: it gathers the valid entries and calls
  plain NumPy.
"""
