"""A fleet that is scaled by the chart's own rules, over a day in minutes, beside a fixed one."""
