"""The layer map: which student layer is aligned with which teacher layer."""

from knife.config.run import Layers
from knife.core.errors import UserError


def layer_map(
    layers: Layers, student_depth: int, teacher_depth: int, key: str = "align.input.layers"
) -> list[tuple[int, int]]:
    """Return pairs of (student layer, teacher layer), counted from 1.

    `last` pairs the last layers, `all` each layer with the same layer of an equally deep teacher;
    `uniform` spreads the student's n layers over the teacher's m, pairing layer l with
    ceil(l m / n), so that the last ones are paired; explicit pairs are used unchanged.

    Raises:
        UserError: the map does not fit the two depths; has all errors.
    """
    if layers == "last":
        return [(student_depth, teacher_depth)]
    if layers == "all":
        if student_depth != teacher_depth:
            raise UserError(
                f"{key}: 'all' needs equal depths, but the student has {student_depth} layers and "
                f"the teacher {teacher_depth}; give pairs such as [[{student_depth}, "
                f"{teacher_depth}]], 'uniform' or 'last'"
            )
        return [(layer, layer) for layer in range(1, student_depth + 1)]
    if layers == "uniform":
        each = range(1, student_depth + 1)
        return [(layer, -(-layer * teacher_depth // student_depth)) for layer in each]
    errors = []
    for student, teacher in layers:
        if not 1 <= student <= student_depth:
            errors.append(f"{key}: student layer {student} must be from 1 to {student_depth}")
        if not 1 <= teacher <= teacher_depth:
            errors.append(f"{key}: teacher layer {teacher} must be from 1 to {teacher_depth}")
    if not layers:
        errors.append(f"{key}: must name at least one pair of layers")
    if len({student for student, _ in layers}) < len(layers):
        errors.append(f"{key}: a student layer is in two pairs")
    if errors:
        raise UserError(*errors)
    return [(student, teacher) for student, teacher in layers]
