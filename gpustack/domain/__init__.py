"""What things are: values and invariants, pure. Nothing here touches a clock, file, socket or database."""
