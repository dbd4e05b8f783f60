import sys
from pathlib import Path

# The modules beside the tests, which the import mode of pytest does not find.
sys.path.insert(0, str(Path(__file__).parent))
