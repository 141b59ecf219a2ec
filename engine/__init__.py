"""The engine: finds the machine, predicts, plans, trains and judges."""
