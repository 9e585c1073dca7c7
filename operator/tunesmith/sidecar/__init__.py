"""Runs beside vLLM in every serving pod: pre-flight, hot load, proof, report."""
