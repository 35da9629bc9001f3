"""Kinds of trouble that need a decision. A module has ``KIND``, ``find(look)``: each trouble of its kind, and
``more(count)``: the sentence that stands for so many more of them."""
