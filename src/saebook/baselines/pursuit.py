"""Which few atoms code each input: the largest of given codes, or orthogonal matching pursuit."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from saebook._checks import check_in_range, check_int_at_least, check_rows, check_unit_rows

CHUNK_BYTES = 2**26  # scratch memory of a pursuit


def keep_largest(
    codes: Float[Tensor, "n n_atoms"], scores: Float[Tensor, "n n_atoms"], l0: int
) -> Float[Tensor, "n n_atoms"]:
    """`codes` with all but the `l0` entries of largest score in each row set to zero."""
    if l0 >= codes.shape[1]:
        return codes
    kept = scores.topk(l0, dim=1).indices
    return torch.zeros_like(codes).scatter(1, kept, codes.gather(1, kept))


@torch.no_grad()
def orthogonal_matching_pursuit(
    x: Float[Tensor, "n d_in"], dictionary: Float[Tensor, "n_atoms d_in"], l0: int
) -> Float[Tensor, "n n_atoms"]:
    """Codes (n, n_atoms) of at most `l0` atoms an input, chosen one by one and fitted together.

    Each step adds the atom of largest |⟨atom, residual⟩| and codes the input anew by least squares
    on all atoms chosen so far. Codes are signed. A row stops early, with fewer atoms, once nothing
    is left of it but rounding, or once the next atom lies in the span of those it has.

    Source: Pati, Rezaiifar & Krishnaprasad 1993; the same codes as scikit-learn's
    `orthogonal_mp`, for many inputs at once.

    Raises:
        ValueError: for shapes that do not fit, values that are not finite, atoms not of norm 1,
            or l0 outside 0 … n_atoms.
        TypeError: for an l0 that is no whole number.
    """
    n_atoms, d_in = check_unit_rows("dictionary", check_rows("dictionary", dictionary)).shape
    check_rows("x", x, d_in)
    check_in_range("l0", check_int_at_least("l0", l0, 0), 0, n_atoms)
    codes = x.new_zeros(len(x), n_atoms)
    if l0 == 0:
        return codes
    row_bytes = x.element_size() * (3 * n_atoms + l0 * (d_in + l0))
    chunk = max(1, CHUNK_BYTES // row_bytes)
    for start in range(0, len(x), chunk):
        support, values = _pursue(x[start : start + chunk], dictionary, l0)
        codes[start : start + chunk].scatter_add_(1, support, values)  # unused slots add 0
    return codes


def _pursue(
    x: Float[Tensor, "n d_in"], dictionary: Float[Tensor, "n_atoms d_in"], l0: int
) -> tuple[Int[Tensor, "n l0"], Float[Tensor, "n l0"]]:
    """The chosen atoms and their codes; a slot that a row leaves unused holds atom 0 and code 0.

    Chosen atoms are kept as A = R Q, Q orthonormal rows and R lower triangular, so that a step
    costs one projection and one product with the dictionary.
    """
    n, d_in = x.shape
    tolerance = 64 * torch.finfo(x.dtype).eps
    smallest = tolerance * x.norm(dim=1)
    support = torch.zeros(n, l0, dtype=torch.int64, device=x.device)
    basis = x.new_zeros(n, l0, d_in)
    triangle = torch.diag_embed(x.new_ones(n, l0))
    coordinates = x.new_zeros(n, l0)
    residual = x.clone()
    active = torch.ones(n, dtype=torch.bool, device=x.device)
    for step in range(l0):
        best, atom = (residual @ dictionary.T).abs_().max(dim=1)
        direction, along = _orthogonal_part(dictionary[atom], basis[:, :step])
        height = direction.norm(dim=1)
        active = active & (best > smallest) & (height > tolerance)
        if not bool(active.any()):
            break
        used = active.to(x.dtype)
        unit = direction / height.clamp(min=tolerance)[:, None] * used[:, None]
        support[:, step] = torch.where(active, atom, 0)
        basis[:, step] = unit
        triangle[:, step, :step] = along * used[:, None]
        triangle[:, step, step] = torch.where(active, height, 1.0)
        coordinates[:, step] = (residual * unit).sum(1)
        residual = residual - coordinates[:, step, None] * unit
    codes = torch.linalg.solve_triangular(triangle.mT, coordinates[..., None], upper=True)
    return support, codes[..., 0]


def _orthogonal_part(
    atoms: Float[Tensor, "n d_in"], basis: Float[Tensor, "n chosen d_in"]
) -> tuple[Float[Tensor, "n d_in"], Float[Tensor, "n chosen"]]:
    """What is left of each atom outside its row's basis, and its coordinates inside.

    Projected twice: once leaves the rounding of a nearly dependent atom.
    """
    along = torch.einsum("nci,ni->nc", basis, atoms)
    left = atoms - torch.einsum("nc,nci->ni", along, basis)
    again = torch.einsum("nci,ni->nc", basis, left)
    return left - torch.einsum("nc,nci->ni", again, basis), along + again
