"""The thresholds of planning, each with the measurement behind it."""

from __future__ import annotations

# Probing takes at most this share of the predicted run; of a short run a larger one, but no more
# than two seconds.
SHARE = 0.05


SHARE_OF_SHORT_RUNS = 0.25


SECONDS_ANYWAY = 0.01


SECONDS_AT_MOST = 2.0


# Chunks shorter than this are measured twice, and the faster counts: the first one takes its memory
# from the system.
LASTING_SECONDS = 0.2


REPETITIONS = 2


# A chunk that took less than this while torch loaded parts of itself, such as its compiler, which
# takes two seconds, is measured again.
LOADING_SECONDS = 10.0


# Opening a strategy verifies its batching, which takes about as long as so many lines, or as it took
# for another one.
LINES_TO_OPEN = 8


# A stream that holds no more than this share of the budget stays open while others are measured.
SHARE_TO_KEEP = 0.01


# With so many more rows than columns, or the other way round, the longer way is not even tried.
HOPELESS = 30


# At one chunk size a strategy this much slower than another is given up, and so many chunks this
# much slower a line than a smaller one end the search: they have left the caches.
FAR_BEHIND = 3.0


WORSE = 1.3


WORSE_IN_A_ROW = 2


# Batches as small as this may be slower than no batches.
SMALL_BATCH = 4


# By so much may the peak of memory grow with chunks that the run tries.
SHARE_OF_PEAK = 0.05


# So many, or more, so that workers end at about the same time.
CHUNKS_OF_A_WORKER = 4


# A run for which compiling, a few seconds, is little; and how much faster it makes chunks that pay.
COMPILES_FROM_SECONDS = 120.0


COMPILED_SHARE = 0.85
