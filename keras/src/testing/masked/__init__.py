"""What tests of masked tensors share. It is in no wheel."""
