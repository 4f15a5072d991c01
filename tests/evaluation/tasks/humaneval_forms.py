"""Texts that answer HumanEval-like questions, by whether a person reads a right function in them.

The question is `PROMPT`. A text of `RIGHT` holds a function that doubles its argument, however it is
wrapped; one of `WRONG` a function that does not; in one of `NONE` there is none.
"""

PROMPT = 'import math\n\ndef half(x):\n    return x / 2\n\ndef double(x):\n    """ Twice x. """\n'
DOUBLE = "def double(x):\n    return 2 * x\n"
SCRIPT = "n = int(input())\nprint(double(n))\n"
SOLUTION = "class Solution:\n    def double(self, x):\n        return 2 * x\n"

COMPLETIONS = [
    "    return 2 * x\n",
    "    return 2 * x",
    "\n    return 2 * x\n",
    "\treturn 2 * x\n",
    "    return 2 * x\n\ndef next_task(y):\n    return None\n",
    "    return 2 * x\n\ndef double(x):\n    return 3 * x\n",
    "    return 2 * x\n\nprint(double('no'",
    "    return 2 * x\n```\n\nThis is how it works:\n",
    "    return 2 * x\n~~~\n\nThis is how it works:\n",
    "    return 2 * x\n```\n\nNow:\n```python\nprint(double(1))\n```\n",
    "    return 2 * x\n\nThis doubles x.\n",
    "    return 2 * x\nn = int(input())\n",
    "    return 2 * x\n\n# Another\nclass A:\n    pass\n",
    "    return int(half(4 * x))\n",
    "    # twice\n    y = x\n\n    return y + x\n",
    "return 2 * x\n",
    "y = x\n    return x + y\n",
    "if x:\n    return 2 * x\nreturn 0\n",
    "Here is the rest:\n\n    return 2 * x\n",
    "    def twice(y):\n        return 2 * y\n    return twice(x)\n",
]
WITHOUT_A_FENCE = [
    DOUBLE,
    f"Here is the function:\n\n{DOUBLE}",
    f"Sure\n\n{DOUBLE}\nDone",
    f"Here is the function:\n{DOUBLE}\nIt doubles x. I hope this helps!",
    f"Here is the function:\n\n{DOUBLE}\nExample:\n\n>>> double(2)\n4\n",
    f"Here is the function:\n\n{DOUBLE}\n{SCRIPT}",
    f"{DOUBLE}\n{SCRIPT}",
    f"{DOUBLE}\ninput()\n",
    f"{DOUBLE}\nprint(double(",
    f"{DOUBLE}\nassert double(2) == 5\n",
    f"{DOUBLE}\nif __name__ == '__main__':\n    {SCRIPT.splitlines()[0]}\n",
    f"from math import floor\n\n{DOUBLE}",
    "I need a helper.\n\ndef twice(y):\n    return 2 * y\n\nThen:\n\ndef double(x):\n    return twice(x)\n",
    "If you want to double x, add it:\n\ndef double(x):\n    return x + x\n\nfrom there on it is easy.",
    "Here it is:\n\n    def double(x):\n        return 2 * x\n\nDone.",
    "    def double(x):\n        return 2 * x\n",
    "def double(x):\n    return twice(x)\n\ndef twice(x):\n    return 2 * x\n",
    "FACTOR = 2\n\ndef double(x):\n    return FACTOR * x\n",
    "def double(x):\n    return FACTOR * x\n\nFACTOR = 2\nprint(FACTOR, input())\n",
    "memo = {}\n\ndef double(x):\n    return memo.setdefault(x, 2 * x)\n\nmemo[0] = 0\n",
    "@staticmethod\ndef double(x):\n    return 2 * x\n",
    "def double(x: int) -> int:\n    '''\nTwice.\n    '''\n    return 2 * x\n\nDone.",
    f"{SOLUTION}",
    f"Here is a class:\n\n{SOLUTION}\nprint(Solution().double(int(input())))\n",
]
FENCED = [
    f"Here it is:\n\n```python\n{DOUBLE}```\nIt doubles.",
    f"```python\n{DOUBLE}",
    f"```py\n{DOUBLE}```",
    f"```\n{DOUBLE}```",
    f"````\n{DOUBLE}````",
    f"~~~\n{DOUBLE}~~~",
    f"Here it is:\n\n~~~python\n{DOUBLE}~~~\n\nIt doubles.",
    "1. Define it:\n\n   ```python\n   def double(x):\n       return 2 * x\n   ```\n\n2. Call it.",
    "- ```python\n  def double(x):\n      return 2 * x\n  ```\n",
    "* Code:\n\n    ```\n    def double(x):\n        return 2 * x\n    ```\n",
    "1. Code:\n\n   ~~~python\n   def double(x):\n       return 2 * x\n   ~~~\n",
    "> ```python\n> def double(x):\n>     return 2 * x\n> ```\n",
    "```python\n    def double(x):\n        return 2 * x\n```",
    "```python\n    return 2 * x\n```",
    "```python\nreturn 2 * x\n```",
    f"Like this:\n```\ndouble(1)\n```\nwith\n```py\n{DOUBLE}```",
    "```python\ndef double(x):\n    return math.floor(2 * x)\n```",
    "```python\ndef twice(x):\n    return 2 * x\n\ndef double(x):\n    return twice(x)\n```",
    "```python\ndef twice(x):\n    return 2 * x\n```\nand\n```python\ndef double(x):\n    return twice(x)\n```",
    f"```python\n{DOUBLE}\n{SCRIPT}```",
    f"```python\n{DOUBLE}\ninput('go on? ')\n```",
    f"```python\nimport sys\n{DOUBLE}\nfor line in sys.stdin:\n    print(double(int(line)))\n```",
    f"```python\nn = int(input())\n\n{DOUBLE}```",
    f"```python\n{DOUBLE}\n# a test\nassert double(2) == 5\n```",
    f"```python\n{DOUBLE}\nprint(double(",
    f"```python\nHere it is:\n{DOUBLE}```",
    f"```python\n{SOLUTION}```",
    "```python\nclass Solution:\n    @staticmethod\n    def double(x):\n        return 2 * x\n```",
    "```python\nclass Solution:\n    def double(x):\n        return 2 * x\n```",
    "```python\nclass Solution:\n    def twice(self, x):\n        return 2 * x\n\n    def double(self, x):\n        return self.twice(x)\n```",
    f"```python\nfrom typing import List\n\n{SOLUTION}\nprint(Solution().double(2))\n```",
    "```python\ndouble = lambda x: 2 * x\n```",
    f"<answer>\n```python\n{DOUBLE}```\n</answer>",
    f"```python\r\n{DOUBLE}```\r\n",
    "```python\nimport re\n\ndef double(x):\n    re.compile('\\d')\n    return 2 * x\n```",
]
RIGHT = [*COMPLETIONS, *WITHOUT_A_FENCE, *FENCED]
WRONG = [
    "    return 3 * x\n",
    "def double(x):\n    return 3 * x\n",
    "```python\ndef double(x):\n    return 3 * x\n```\nor\n```python\ndef double(x):\n    return 2 * x\n```",
    "class Solution:\n    def double(self, x):\n        return 3 * x\n",
    "    pass\n",
    "def double(x):\n    return int(input())\n",
    f"{DOUBLE}\ndouble = half\n",
]
NONE = ["", " \n", "```python\n```", "\ndef other():\n    pass\n", "~~~\n~~~"]
