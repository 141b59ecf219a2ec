"""Widgets: charts, gauges, forms and dialogs."""
