"""What is done for a caller, whatever wire API they speak: submit, read, wait, watch. Knows no HTTP and no dialect.

checks    whether a model takes what a submission asks for
submit    a submission becomes generations
read      generations and their results, as a caller may have them
wait      until generations are over
watch     one reader of the event log, many subscribers
route     which queue; forecast, how long and how much; budgets, how much at the most
tickets   wakes workers; objects, the object store; keys, who is who; signing, what proves a link is ours
"""
