import sys
from pathlib import Path

# pytest's import mode does not find the modules beside the tests.
sys.path.insert(0, str(Path(__file__).parent))
