"""Do the names of stzoo that a block of Python uses exist, and do its calls fit them? Nothing of the block is run."""

import ast
import inspect
import re
import sys
from dataclasses import dataclass
from importlib import import_module
from types import ModuleType
from typing import Any


@dataclass(frozen=True)
class Instance:
    """A value of which only the class is known."""

    cls: type


class Names(ast.NodeVisitor):
    """Follows what is imported from stzoo, what is assigned from its calls, attributes and arguments.

    Raises:
        AttributeError: a name that is not there.
        ImportError: an import that fails.
        TypeError: a call whose arguments do not fit.
    """

    def __init__(self, known: dict[str, Any]) -> None:
        self.known = known

    def visit_Import(self, node: ast.Import) -> None:
        for name in node.names:
            if name.name.split(".")[0] == "stzoo":
                module = import_module(name.name)
                self.known[name.asname or "stzoo"] = module if name.asname else sys.modules["stzoo"]

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        if node.module and node.module.split(".")[0] == "stzoo":
            module = import_module(node.module)
            for name in node.names:
                self.known[name.asname or name.name] = self.member(module, name.name)

    def visit_Assign(self, node: ast.Assign) -> None:
        value = self.value(node.value)
        for target in node.targets:
            if isinstance(target, ast.Name):
                self.known[target.id] = value
            else:
                self.visit(target)

    def visit_Expr(self, node: ast.Expr) -> None:
        self.value(node.value)

    def visit_Attribute(self, node: ast.Attribute) -> None:
        self.value(node)

    def visit_Call(self, node: ast.Call) -> None:
        self.value(node)

    def value(self, node: ast.expr) -> Any:
        """The object or the `Instance` that an expression stands for; None if that is not known."""
        if isinstance(node, ast.Name):
            return self.known.get(node.id)
        if isinstance(node, ast.Attribute):
            return self.member(self.value(node.value), node.attr)
        if isinstance(node, ast.Call):
            for argument in (*node.args, *(keyword.value for keyword in node.keywords)):
                self.value(argument)
            return self.called(self.value(node.func), node)
        self.generic_visit(node)
        return None

    def member(self, owner: Any, name: str) -> Any:
        if isinstance(owner, Instance):
            ours = [each for each in owner.cls.__mro__ if each.__module__.startswith("stzoo")]
            fields = {key for each in ours for key in vars(each).get("__annotations__", {})}
            fields |= {key for each in ours for key in re.findall(r"self\.(\w+)", inspect.getsource(each))}
            found = getattr(owner.cls, name, None) if name in fields else getattr(owner.cls, name)
            return found.__get__(object()) if inspect.isfunction(found) else None
        if not isinstance(owner, ModuleType | type):
            return None
        try:
            return getattr(owner, name)
        except AttributeError:
            if isinstance(owner, ModuleType) and owner.__name__.startswith("stzoo"):
                return import_module(f"{owner.__name__}.{name}")
            raise

    def called(self, function: Any, node: ast.Call) -> Any:
        if not callable(function) or not getattr(function, "__module__", "").startswith("stzoo"):
            return None
        keywords = [keyword.arg for keyword in node.keywords if keyword.arg]
        starred = any(isinstance(a, ast.Starred) for a in node.args) or len(keywords) < len(node.keywords)
        if isinstance(function, type) and issubclass(function, BaseException):
            return Instance(function)  # takes what it is given
        if not starred:
            inspect.signature(function).bind(*node.args, **dict.fromkeys(keywords))
        if isinstance(function, type):
            return Instance(function)
        returned = inspect.signature(function).return_annotation
        home = vars(sys.modules[function.__module__])
        returned = home.get(returned) if isinstance(returned, str) else returned
        return Instance(returned) if isinstance(returned, type) and returned.__module__.startswith("stzoo") else None
