"""The mesh of a face: which of MediaPipe's 478 points are used, and where an average face has them."""

from __future__ import annotations

import functools

import cv2
import numpy as np
import numpy.typing as npt

from pipeline.types import Floats

Indices = npt.NDArray[np.int64]

# Points of MediaPipe's face landmarker in its numbering; left and right are the picture's.
OVAL = (
    *(10, 338, 297, 332, 284, 251, 389, 356, 454, 323, 361, 288, 397, 365, 379, 378, 400, 377),
    *(152, 148, 176, 149, 150, 136, 172, 58, 132, 93, 234, 127, 162, 21, 54, 103, 67, 109),
)
LEFT_BROW = (70, 63, 105, 66, 107, 55, 65, 52, 53, 46)
RIGHT_BROW = (300, 293, 334, 296, 336, 285, 295, 282, 283, 276)
LEFT_EYE = (33, 7, 163, 144, 145, 153, 154, 155, 133, 173, 157, 158, 159, 160, 161, 246)
RIGHT_EYE = (263, 249, 390, 373, 374, 380, 381, 382, 362, 398, 384, 385, 386, 387, 388, 466)
NOSE = (168, 6, 197, 195, 5, 4, 1, 2, 98, 327, 64, 294, 129, 358)
OUTER_LIPS = (61, 146, 91, 181, 84, 17, 314, 405, 321, 375, 291, 409, 270, 269, 267, 0, 37, 39, 40, 185)
INNER_LIPS = (78, 95, 88, 178, 87, 14, 317, 402, 318, 324, 308, 415, 310, 311, 312, 13, 82, 81, 80, 191)
CHEEKS = (50, 280, 205, 425, 36, 266, 187, 411, 117, 346)
CHIN = (18, 200, 199, 175)
FOREHEAD = (9, 8, 151, 108, 337, 104, 333)
# The lower half of the oval, ear to ear over the chin.
JAW = (
    *(454, 323, 361, 288, 397, 365, 379, 378, 400, 377),
    *(152, 148, 176, 149, 150, 136, 172, 58, 132, 93, 234),
)

# Number, x, y, z in eye distances from the middle between the eyes, y down and z away from the camera: the mean over
# 286 frontal reals (DFDC, UTKFace, FaceForensics++, FFHQ, DeepFaceLive's documentation), each upright by its eyes, then
# made symmetric.
_TABLE = """
10 0.000 -0.820 -0.224; 338 0.315 -0.813 -0.200; 297 0.581 -0.774 -0.097; 332 0.824 -0.688 0.081
284 0.981 -0.556 0.287; 251 1.080 -0.384 0.482; 389 1.133 -0.194 0.690; 356 1.155 0.040 0.851
454 1.150 0.265 0.923; 323 1.138 0.500 0.926; 361 1.104 0.755 0.881; 288 1.038 1.034 0.783
397 0.945 1.263 0.619; 365 0.836 1.430 0.445; 379 0.688 1.576 0.307; 378 0.554 1.677 0.196
400 0.406 1.767 0.080; 377 0.229 1.838 0.002; 152 0.000 1.860 -0.027; 148 -0.229 1.838 0.002
176 -0.406 1.767 0.080; 149 -0.554 1.677 0.196; 150 -0.688 1.576 0.307; 136 -0.836 1.430 0.445
172 -0.945 1.263 0.619; 58 -1.038 1.034 0.783; 132 -1.104 0.755 0.881; 93 -1.138 0.500 0.926
234 -1.150 0.265 0.923; 127 -1.155 0.040 0.851; 162 -1.133 -0.194 0.690; 21 -1.080 -0.384 0.482
54 -0.981 -0.556 0.287; 103 -0.824 -0.688 0.081; 67 -0.581 -0.774 -0.097; 109 -0.315 -0.813 -0.200
70 -0.947 -0.264 0.058; 63 -0.848 -0.357 -0.074; 105 -0.696 -0.409 -0.182; 66 -0.490 -0.401 -0.276
107 -0.250 -0.366 -0.323; 55 -0.217 -0.231 -0.285; 65 -0.471 -0.311 -0.256; 52 -0.659 -0.325 -0.200
53 -0.796 -0.290 -0.123; 46 -0.888 -0.217 -0.028; 300 0.947 -0.264 0.058; 293 0.848 -0.357 -0.074
334 0.696 -0.409 -0.182; 296 0.490 -0.401 -0.276; 336 0.250 -0.366 -0.323; 285 0.217 -0.231 -0.285
295 0.471 -0.311 -0.256; 282 0.659 -0.325 -0.200; 283 0.796 -0.290 -0.123; 276 0.888 -0.217 -0.028
33 -0.717 -0.014 0.041; 7 -0.682 0.011 0.009; 163 -0.644 0.027 -0.018; 144 -0.592 0.039 -0.049
145 -0.516 0.043 -0.073; 153 -0.435 0.036 -0.078; 154 -0.361 0.025 -0.063; 155 -0.309 0.020 -0.043
133 -0.283 0.014 -0.041; 173 -0.313 -0.013 -0.057; 157 -0.374 -0.054 -0.078; 158 -0.458 -0.083 -0.095
159 -0.540 -0.089 -0.091; 160 -0.614 -0.076 -0.067; 161 -0.664 -0.053 -0.035; 246 -0.693 -0.033 -0.002
263 0.717 -0.014 0.041; 249 0.682 0.011 0.009; 390 0.644 0.027 -0.018; 373 0.592 0.039 -0.049
374 0.516 0.043 -0.073; 380 0.435 0.036 -0.078; 381 0.361 0.025 -0.063; 382 0.309 0.020 -0.043
362 0.283 0.014 -0.041; 398 0.313 -0.013 -0.057; 384 0.374 -0.054 -0.078; 385 0.458 -0.083 -0.095
386 0.540 -0.089 -0.091; 387 0.614 -0.076 -0.067; 388 0.664 -0.053 -0.035; 466 0.693 -0.033 -0.002
168 0.000 -0.068 -0.312; 6 0.000 0.065 -0.387; 197 0.000 0.177 -0.472; 195 0.000 0.277 -0.566
5 0.000 0.385 -0.661; 4 0.000 0.515 -0.702; 1 0.000 0.616 -0.667; 2 0.000 0.726 -0.412; 98 -0.278 0.690 -0.281
327 0.278 0.690 -0.281; 64 -0.312 0.629 -0.354; 294 0.312 0.629 -0.354; 129 -0.342 0.585 -0.219
358 0.342 0.585 -0.219; 61 -0.445 1.086 -0.067; 146 -0.407 1.149 -0.121; 91 -0.350 1.214 -0.191
181 -0.261 1.281 -0.244; 84 -0.140 1.325 -0.289; 17 0.000 1.340 -0.297; 314 0.140 1.325 -0.289
405 0.261 1.281 -0.244; 321 0.350 1.214 -0.191; 375 0.407 1.149 -0.121; 291 0.445 1.086 -0.067
409 0.406 1.048 -0.156; 270 0.346 1.011 -0.248; 269 0.260 0.975 -0.332; 267 0.133 0.944 -0.395
0 0.000 0.966 -0.408; 37 -0.133 0.944 -0.395; 39 -0.260 0.975 -0.332; 40 -0.346 1.011 -0.248
185 -0.406 1.048 -0.156; 78 -0.403 1.087 -0.097; 95 -0.338 1.115 -0.131; 88 -0.281 1.134 -0.184
178 -0.206 1.152 -0.230; 87 -0.111 1.166 -0.268; 14 0.000 1.174 -0.282; 317 0.111 1.166 -0.268
402 0.206 1.152 -0.230; 318 0.281 1.134 -0.184; 324 0.338 1.115 -0.131; 308 0.403 1.087 -0.097
415 0.341 1.076 -0.146; 310 0.281 1.066 -0.208; 311 0.205 1.058 -0.259; 312 0.111 1.059 -0.300
13 0.000 1.063 -0.314; 82 -0.111 1.059 -0.300; 81 -0.205 1.058 -0.259; 80 -0.281 1.066 -0.208
191 -0.341 1.076 -0.146; 50 -0.815 0.515 -0.066; 280 0.815 0.515 -0.066; 205 -0.673 0.653 -0.150
425 0.673 0.653 -0.150; 36 -0.512 0.530 -0.193; 266 0.512 0.530 -0.193; 187 -0.888 0.739 0.044
411 0.888 0.739 0.044; 117 -0.864 0.256 0.037; 346 0.864 0.256 0.037; 18 0.000 1.434 -0.204
200 0.000 1.543 -0.194; 199 0.000 1.670 -0.193; 175 0.000 1.784 -0.141; 9 0.000 -0.342 -0.333
8 0.000 -0.206 -0.315; 151 0.000 -0.583 -0.286; 108 -0.281 -0.587 -0.263; 337 0.281 -0.587 -0.263
104 -0.760 -0.549 -0.064; 333 0.760 -0.549 -0.064
"""


@functools.cache
def numbers() -> Indices:
    """int64 [163]: the mesh's points in MediaPipe's numbering."""
    return np.array([int(number) for number, *_ in _rows()], np.int64)


@functools.cache
def mean_mesh() -> Floats:
    """float32 [163, 3]: the average face, in eye distances from the middle between the eyes."""
    return np.array([[float(value) for value in place] for _, *place in _rows()], np.float32)


def _rows() -> list[list[str]]:
    return [row.split() for line in _TABLE.strip().splitlines() for row in line.split(";")]


@functools.cache
def places(*points: int) -> Indices:
    """Where points in MediaPipe's numbering are among the mesh's own."""
    at = {int(number): place for place, number in enumerate(numbers())}
    return np.array([at[point] for point in points], np.int64)


@functools.cache
def mirrored() -> Indices:
    """int64 [163]: for each point its counterpart on the other side of the face."""
    mesh = mean_mesh()
    distances = np.linalg.norm(mesh[:, None] - mesh[None] * np.array([-1, 1, 1], np.float32), axis=2)
    return np.asarray(distances.argmin(axis=1))


@functools.cache
def triangles() -> Indices:
    """int64 [T, 3]: the Delaunay triangulation of the average face."""
    return triangulated(mean_mesh()[:, :2])


def triangulated(points: Floats) -> Indices:
    """Delaunay triangles int64 [T, 3] of points float32 [P, 2], all with the same orientation."""
    low, high = points.min(axis=0), points.max(axis=0)
    # Subdiv2D needs positive coordinates and a border; thousandths separate near points.
    scaled = (points - low) / max(float((high - low).max()), 1e-6) * 1000 + 10
    plane = cv2.Subdiv2D((0, 0, 1021, 1021))
    at = {plane.insert((float(x), float(y))): place for place, (x, y) in enumerate(scaled)}
    corners = np.asarray(plane.getTriangleList(), np.float32).reshape(-1, 3, 2)
    inside = ((corners > 0) & (corners < 1021)).all(axis=(1, 2))
    nearest = [[at[plane.findNearest((float(x), float(y)))[0]] for x, y in corner] for corner in corners[inside]]
    found = np.array(nearest, np.int64).reshape(-1, 3)
    flipped = signed_areas(points, found) < 0
    found[flipped] = found[flipped][:, ::-1]
    return found


def signed_areas(points: Floats, corners: Indices) -> Floats:
    """Twice the area of each triangle, float32 [T]; negative for the other orientation."""
    a, b, c = (points[corners[:, k]] for k in range(3))
    return np.asarray((b - a)[:, 0] * (c - a)[:, 1] - (b - a)[:, 1] * (c - a)[:, 0])
