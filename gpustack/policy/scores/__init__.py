"""Which of several places is taken. Each module has ``NAME``; ``weight(strategy)``, 0 where it is not asked; and
``score(candidate, request, snapshot)``, 0 to 100, of the place with all its members. With ``most(prospect)``, which
tells from numbers that score of a place on one device, or more, only workers that can win are looked at."""
