"""The code of a page, as jupytext reads it."""

import ast

from bookkit.chapters import cells, code_of

PAGE = """---
kernelspec:
  display_name: Python 3
  name: python3
---
# A page

```{code-cell} python
:tags: [hide-input]
%matplotlib inline
x = 1
```
```python
not_run = True
```
````{solution-start} a
````
```{code-cell} python
---
mystnb:
  image:
    alt: A
---
y = x
```
````{solution-end}
````
"""


def test_the_cells_of_a_page_are_its_code_without_options():
    assert cells(PAGE) == ["%matplotlib inline\nx = 1", "y = x"]


def test_the_code_of_a_page_is_one_module_without_magics():
    assert ast.unparse(code_of(PAGE)) == "x = 1\ny = x"
