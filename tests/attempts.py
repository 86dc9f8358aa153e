"""What learners may write in place of the exercises' stubs: notebook -> function -> right and wrong attempts.

An attempt is the body of the function, below the stub's first line. Right ones solve the exercise in another way than
the folded solution. Each wrong one is named after its misunderstanding, and comes after a piece of the hint that it
has to get. What else a cell asks for is taken from the solution.
"""

ATTEMPTS = {
    "01_data_augmentation": {
        "cutout": {
            "right": {
                "a mask for the whole batch": """
                    rows, columns = torch.arange(x.shape[2])[:, None], torch.arange(x.shape[3])
                    top, left = top[:, None, None, None], left[:, None, None, None]
                    inside = (rows >= top) & (rows < top + side) & (columns >= left) & (columns < left + side)
                    return torch.where(inside, 0.5, x)
                """,
                "image by image, stacked": """
                    out = []
                    for image, t, l in zip(x.clone(), top.tolist(), left.tolist()):
                        image[:, t : t + side, l : l + side].fill_(0.5)
                        out.append(image)
                    return torch.stack(out)
                """,
                "gray laid over x": """
                    hole = torch.zeros(len(x), 1, *x.shape[2:])
                    for i in range(len(x)):
                        hole[i, 0, int(top[i]) : int(top[i] + side), int(left[i]) : int(left[i] + side)] = 1
                    return x * (1 - hole) + 0.5 * hole
                """,
            },
            "wrong": {
                "paints x itself": ("work on a copy", """
                    out = x
                    for i in range(len(x)):
                        out[i, :, top[i] : top[i] + side, left[i] : left[i] + side] = 0.5
                    return out
                """),
                "takes left for the row": ("the square should be 0.5", """
                    out = x.clone()
                    for i in range(len(x)):
                        out[i, :, left[i] : left[i] + side, top[i] : top[i] + side] = 0.5
                    return out
                """),
                "ends at side": ("the square should be 0.5", """
                    out = x.clone()
                    for i in range(len(x)):
                        out[i, :, top[i] : side, left[i] : side] = 0.5
                    return out
                """),
                "one channel only": ("the square should be 0.5", """
                    out = x.clone()
                    for i in range(len(x)):
                        out[i, 0, top[i] : top[i] + side, left[i] : left[i] + side] = 0.5
                    return out
                """),
                "one pixel too many": ("exactly one square per image", """
                    out = x.clone()
                    for i in range(len(x)):
                        out[i, :, top[i] : top[i] + side + 1, left[i] : left[i] + side + 1] = 0.5
                    return out
                """),
                "every square in every image": ("exactly one square per image", """
                    out = x.clone()
                    for t, l in zip(top, left):
                        out[:, :, t : t + side, l : l + side] = 0.5
                    return out
                """),
            },
        },
        "shared_area": {
            "right": {
                "edges by name": """
                    top, left = torch.max(one["top"], two["top"]), torch.max(one["left"], two["left"])
                    bottom = torch.min(one["top"] + one["height"], two["top"] + two["height"])
                    right = torch.min(one["left"] + one["width"], two["left"] + two["width"])
                    return F.relu(bottom - top) / H * (F.relu(right - left) / W)
                """,
                "one image at a time": """
                    def overlap(start, size, i):
                        end = min(box[start][i].item() + box[size][i].item() for box in (one, two))
                        return max(0, end - max(one[start][i].item(), two[start][i].item()))

                    N = len(one["top"])
                    return torch.tensor([overlap("top", "height", i) * overlap("left", "width", i) / H / W
                                         for i in range(N)])
                """,
                "counts pixels": """
                    both = torch.ones(len(one["top"]), H, W, dtype=torch.float64)
                    for box in (one, two):
                        for start, size, places in (("top", "height", torch.arange(H)[:, None]),
                                                    ("left", "width", torch.arange(W)[None])):
                            begin = box[start][:, None, None]
                            both *= (places >= begin) & (places < begin + box[size][:, None, None])
                    return both.mean(dim=(1, 2))
                """,
            },
            "wrong": {
                "union for the image": ("over all H x W", """
                    area = 1
                    for start, size in (("top", "height"), ("left", "width")):
                        begin = torch.maximum(one[start], two[start])
                        end = torch.minimum(one[start] + one[size], two[start] + two[size])
                        area = area * (end - begin).clamp(min=0)
                    return area / (one["height"] * one["width"] + two["height"] * two["width"] - area)
                """),
                "clamps the product": ("boxes that do not touch share nothing", """
                    top, left = torch.max(one["top"], two["top"]), torch.max(one["left"], two["left"])
                    bottom = torch.min(one["top"] + one["height"], two["top"] + two["height"])
                    right = torch.min(one["left"] + one["width"], two["left"] + two["width"])
                    return ((bottom - top) * (right - left)).clamp(min=0) / (H * W)
                """),
                "counts the last pixel twice": ("boxes that do not touch share nothing", """
                    area = 1
                    for start, size in (("top", "height"), ("left", "width")):
                        begin = torch.maximum(one[start], two[start])
                        end = torch.minimum(one[start] + one[size], two[start] + two[size])
                        area = area * (end - begin + 1).clamp(min=0)
                    return area / (H * W)
                """),
                "a number of pixels": ("a share of the image", """
                    area = 1
                    for start, size in (("top", "height"), ("left", "width")):
                        begin = torch.maximum(one[start], two[start])
                        end = torch.minimum(one[start] + one[size], two[start] + two[size])
                        area = area * (end - begin).clamp(min=0)
                    return area
                """),
                "averages over the images": ("one number per image", """
                    area = 1
                    for start, size in (("top", "height"), ("left", "width")):
                        begin = torch.maximum(one[start], two[start])
                        end = torch.minimum(one[start] + one[size], two[start] + two[size])
                        area = area * (end - begin).clamp(min=0)
                    return area.mean() / (H * W)
                """),
                "width for height": ("boxes that do not touch share nothing", """
                    area = 1
                    for start, size in (("top", "width"), ("left", "height")):
                        begin = torch.maximum(one[start], two[start])
                        end = torch.minimum(one[start] + one[size], two[start] + two[size])
                        area = area * (end - begin).clamp(min=0)
                    return area / (H * W)
                """),
            },
        },
    },
    "02_encoder_and_predictor": {
        "receptive_field": {
            "right": {
                "a product of the strides before": """
                    return 1 + sum((k - 1) * math.prod(strides[:i]) for i, k in enumerate(kernels))
                """,
                "from the last layer back": """
                    field = 1
                    for kernel, stride in reversed(list(zip(kernels, strides))):
                        field = (field - 1) * stride + kernel
                    return field
                """,
                "recursive": """
                    if not kernels:
                        return 1
                    return kernels[0] + strides[0] * (receptive_field(kernels[1:], strides[1:]) - 1)
                """,
                "a tensor": """
                    steps = torch.tensor([1, *strides[:-1]]).cumprod(0)
                    return 1 + ((torch.tensor(kernels) - 1) * steps).sum()
                """,
            },
            "wrong": {
                "its own stride counts": ("step of the layers that follow", """
                    field, step = 1, 1
                    for kernel, stride in zip(kernels, strides):
                        step *= stride
                        field += (kernel - 1) * step
                    return field
                """),
                "begins at 0": ("sees 3 pixels", """
                    field, step = 0, 1
                    for kernel, stride in zip(kernels, strides):
                        field += (kernel - 1) * step
                        step *= stride
                    return field
                """),
                "multiplies the kernels": ("adds a pixel on either side", "return math.prod(kernels)"),
                "no strides": ("after a stride of 2", "return 1 + sum(kernel - 1 for kernel in kernels)"),
                "the stride before only": ("strides multiply", """
                    return 1 + sum((k - 1) * s for k, s in zip(kernels, [1, *strides[:-1]]))
                """),
                "adds the strides up": ("strides multiply", """
                    field, step = 1, 1
                    for kernel, stride in zip(kernels, strides):
                        field += (kernel - 1) * step
                        step += stride - 1
                    return field
                """),
                "all kernels are 3": ("kernels may differ", """
                    field, step = 1, 1
                    for stride in strides:
                        field += 2 * step
                        step *= stride
                    return field
                """),
            },
        },
        "patchify": {
            "right": {
                "unflatten": """
                    x = x.unflatten(3, (-1, p)).unflatten(2, (-1, p))  # (N, C, H / p, p, W / p, p)
                    return x.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)
                """,
                "torch.nn.functional.unfold": "return F.unfold(x, p, stride=p).mT",
                "the method unfold": """
                    squares = x.unfold(2, p, p).unfold(3, p, p)  # (N, C, H / p, W / p, p, p)
                    return squares.permute(0, 2, 3, 1, 4, 5).flatten(3).flatten(1, 2)
                """,
                "einsum": """
                    N, C, H, W = x.shape
                    x = x.view(N, C, H // p, p, W // p, p)
                    return torch.einsum("nchpwq->nhwcpq", x).reshape(N, -1, C * p * p)
                """,
            },
            "wrong": {
                "one reshape": ("the first square", """
                    N, C, H, W = x.shape
                    return x.reshape(N, (H // p) * (W // p), C * p * p)
                """),
                "channels last": ("channels first", """
                    N, C, H, W = x.shape
                    x = x.reshape(N, C, H // p, p, W // p, p)
                    return x.permute(0, 2, 4, 3, 5, 1).reshape(N, (H // p) * (W // p), C * p * p)
                """),
                "every p-th pixel": ("the first square", """
                    N, C, H, W = x.shape
                    x = x.reshape(N, C, p, H // p, p, W // p)
                    return x.permute(0, 3, 5, 1, 2, 4).reshape(N, (H // p) * (W // p), C * p * p)
                """),
                "column by column": ("reading order", """
                    N, C, H, W = x.shape
                    x = x.reshape(N, C, H // p, p, W // p, p)
                    return x.permute(0, 4, 2, 1, 3, 5).reshape(N, (H // p) * (W // p), C * p * p)
                """),
                "unfold, not transposed": ("2 x 4 squares", "return F.unfold(x, p, stride=p)"),
            },
        },
    },
    "03_collapse": {
        "participation": {
            "right": {
                "a tensor": "return eigvals.sum().square() / eigvals.square().sum()",
                "shares": """
                    share = eigvals / eigvals.sum()
                    return 1 / (share @ share).item()
                """,
                "plain Python": """
                    values = eigvals.tolist()
                    return sum(values) ** 2 / sum(value * value for value in values)
                """,
                "norms": "return (torch.linalg.norm(eigvals, 1) / torch.linalg.norm(eigvals)).item() ** 2",
            },
            "wrong": {
                "no square above": ("count as 4", "return (eigvals.sum() / eigvals.square().sum()).item()"),
                "upside down": ("count as 4", "return (eigvals.square().sum() / eigvals.sum() ** 2).item()"),
                "means for sums": ("count as 4", "return (eigvals.mean() ** 2 / eigvals.square().mean()).item()"),
                "an epsilon that is not small": ("the scale should not matter", """
                    return (eigvals.sum() ** 2 / (eigvals.square().sum() + 1e-7)).item()
                """),
                "widths for variances": ("as they are", """
                    widths = eigvals.sqrt()
                    return (widths.sum() ** 2 / eigvals.sum()).item()
                """),
                "the effective rank": ("square the sum above", "return entropy_rank(eigvals)"),
            },
        },
        "first_alarm": {
            "right": {
                "tensors": """
                    loss, variance = (torch.tensor(x).double() for x in (loss_by_epoch, variance_by_epoch))
                    ratio = loss / variance
                    alarm = (loss / loss[0] < share) & ~(ratio / ratio[0] < share)
                    return alarm.nonzero()[0].item() if alarm.any() else None
                """,
                "next": """
                    first_loss, first_variance = loss_by_epoch[0], variance_by_epoch[0]
                    fallen = ((a / first_loss, b / first_variance) for a, b in zip(loss_by_epoch, variance_by_epoch))
                    return next((i for i, (a, b) in enumerate(fallen) if a < share and a >= share * b), None)
                """,
                "a list of all alarms": """
                    epochs = []
                    for epoch in range(len(loss_by_epoch)):
                        loss = loss_by_epoch[epoch] / loss_by_epoch[0]
                        if loss < share and not loss / (variance_by_epoch[epoch] / variance_by_epoch[0]) < share:
                            epochs.append(epoch)
                    return min(epochs, default=None)
                """,
            },
            "wrong": {
                "share for the loss alone": ("sets both limits", """
                    ratios = [loss / variance for loss, variance in zip(loss_by_epoch, variance_by_epoch)]
                    for epoch, (loss, ratio) in enumerate(zip(loss_by_epoch, ratios)):
                        if loss < share * loss_by_epoch[0] and ratio >= 0.5 * ratios[0]:
                            return epoch
                    return None
                """),
                "counts from 1": ("from epoch 1 on", """
                    ratios = [loss / variance for loss, variance in zip(loss_by_epoch, variance_by_epoch)]
                    for epoch, (loss, ratio) in enumerate(zip(loss_by_epoch, ratios), 1):
                        if loss < share * loss_by_epoch[0] and ratio >= share * ratios[0]:
                            return epoch
                    return None
                """),
                "loss and variance both fell": ("until epoch 2", """
                    for epoch, (loss, variance) in enumerate(zip(loss_by_epoch, variance_by_epoch)):
                        if loss < share * loss_by_epoch[0] and variance < share * variance_by_epoch[0]:
                            return epoch
                    return None
                """),
                "the loss alone": ("this run is learning", """
                    for epoch, loss in enumerate(loss_by_epoch):
                        if loss < share * loss_by_epoch[0]:
                            return epoch
                    return None
                """),
                "the variance alone": ("it claims no success", """
                    for epoch, variance in enumerate(variance_by_epoch):
                        if variance < share * variance_by_epoch[0]:
                            return epoch
                    return None
                """),
                "variance over loss": ("this run is learning", """
                    ratios = [variance / loss for loss, variance in zip(loss_by_epoch, variance_by_epoch)]
                    for epoch, (loss, ratio) in enumerate(zip(loss_by_epoch, ratios)):
                        if loss < share * loss_by_epoch[0] and ratio >= share * ratios[0]:
                            return epoch
                    return None
                """),
                "fixed limits": ("compare with the first values", """
                    for epoch, (loss, variance) in enumerate(zip(loss_by_epoch, variance_by_epoch)):
                        if loss < share and loss / variance >= share:
                            return epoch
                    return None
                """),
                "the epoch before for the first": ("until epoch 2", """
                    ratios = [loss / variance for loss, variance in zip(loss_by_epoch, variance_by_epoch)]
                    for epoch in range(1, len(ratios)):
                        fell = loss_by_epoch[epoch] < share * loss_by_epoch[epoch - 1]
                        if fell and ratios[epoch] >= share * ratios[epoch - 1]:
                            return epoch
                    return None
                """),
                "gives up at the first epoch": ("fall alike", """
                    ratios = [loss / variance for loss, variance in zip(loss_by_epoch, variance_by_epoch)]
                    for epoch, (loss, ratio) in enumerate(zip(loss_by_epoch, ratios)):
                        if loss < share * loss_by_epoch[0] and ratio >= share * ratios[0]:
                            return epoch
                        return None
                """),
                "half, whatever the share": ("sets both limits", """
                    ratios = [loss / variance for loss, variance in zip(loss_by_epoch, variance_by_epoch)]
                    for epoch, (loss, ratio) in enumerate(zip(loss_by_epoch, ratios)):
                        if loss < 0.5 * loss_by_epoch[0] and ratio >= 0.5 * ratios[0]:
                            return epoch
                    return None
                """),
            },
        },
        "cosine_loss": {
            "right": {
                "products of directions": """
                    u, v = F.normalize(z, dim=2)
                    return 1 - (u * v).sum(dim=1).mean()
                """,
                "half the squared distance": """
                    u = F.normalize(z, dim=-1)
                    return (u[0] - u[1]).square().sum(dim=-1).mean() / 2
                """,
                "one image at a time": """
                    costs = [1 - a @ b / (a.norm() * b.norm()) for a, b in zip(*z)]
                    return torch.stack(costs).mean()
                """,
                "CosineSimilarity": "return (1 - nn.CosineSimilarity(dim=-1)(*z)).mean()",
            },
            "wrong": {
                "one number per image": ("one number", "return 1 - F.cosine_similarity(z[0], z[1], dim=1)"),
                "no 1 before it": ("views that agree cost nothing", "return -F.cosine_similarity(z[0], z[1]).mean()"),
                "products without lengths": ("views that agree cost nothing", """
                    return 1 - (z[0] * z[1]).sum(dim=1).mean()
                """),
                "directions over the images": ("views that agree cost nothing", """
                    u = F.normalize(z)
                    return 1 - (u[0] * u[1]).sum(dim=1).mean()
                """),
                "the sign is lost": ("opposite views", "return 1 - F.cosine_similarity(z[0], z[1]).abs().mean()"),
                "wrong axis": ("a right angle", "return 1 - F.cosine_similarity(z[0], z[1], dim=0).mean()"),
                "one angle for all": ("a right angle", """
                    return 1 - F.cosine_similarity(z[0].flatten(), z[1].flatten(), dim=0)
                """),
                "the angle of the means": ("a right angle", """
                    return 1 - F.cosine_similarity(z[0].mean(dim=0), z[1].mean(dim=0), dim=0)
                """),
            },
        },
    },
    "04_vicreg": {
        "hinge_gradient": {
            "right": {
                "torch.where": """
                    V, N, D = z.shape
                    centred = z - z.mean(dim=1, keepdim=True)
                    sigma = (centred.square().sum(dim=1, keepdim=True) / (N - 1) + eps) ** 0.5
                    return torch.where(sigma < margin, -centred / ((N - 1) * sigma * V * D), 0.0)
                """,
                "loops": """
                    V, N, D = z.shape
                    out = torch.zeros(V, N, D)
                    for v in range(V):
                        for d in range(D):
                            column = z[v, :, d].detach().double()
                            sigma = (column.var() + eps).sqrt()
                            if sigma < margin:
                                out[v, :, d] = -(column - column.mean()) / ((N - 1) * sigma) / V / D
                    return out
                """,
                "NumPy": """
                    x = z.detach().numpy().astype("float64")
                    V, N, D = x.shape
                    sigma = (x.var(axis=1, ddof=1, keepdims=True) + eps) ** 0.5
                    return -(x - x.mean(axis=1, keepdims=True)) / (N - 1) / sigma * (sigma < margin) / (V * D)
                """,
            },
            "wrong": {
                "centres z itself": ("should not change", """
                    V, N, D = z.shape
                    z -= z.mean(dim=1, keepdim=True)
                    std = torch.sqrt(z.var(dim=1, keepdim=True) + eps)
                    return -z / ((N - 1) * std) * (std < margin) / (V * D)
                """),
                "no eps": ("eps belongs under the root", """
                    V, N, D = z.shape
                    std = z.std(dim=1, keepdim=True)
                    return -(z - z.mean(dim=1, keepdim=True)) / ((N - 1) * std) * (std < margin) / (V * D)
                """),
                "not centred": ("centre z", """
                    V, N, D = z.shape
                    std = torch.sqrt(z.var(dim=1, keepdim=True) + eps)
                    return -z / ((N - 1) * std) * (std < margin) / (V * D)
                """),
                "divides by N": ("mind N - 1", """
                    V, N, D = z.shape
                    std = torch.sqrt(z.var(dim=1, keepdim=True) + eps)
                    return -(z - z.mean(dim=1, keepdim=True)) / (N * std) * (std < margin) / (V * D)
                """),
                "averages over the images too": ("count what is averaged", """
                    V, N, D = z.shape
                    std = torch.sqrt(z.var(dim=1, keepdim=True) + eps)
                    return -(z - z.mean(dim=1, keepdim=True)) / ((N - 1) * std) * (std < margin) / (V * N * D)
                """),
                "no average over views": ("count what is averaged", """
                    V, N, D = z.shape
                    std = torch.sqrt(z.var(dim=1, keepdim=True) + eps)
                    return -(z - z.mean(dim=1, keepdim=True)) / ((N - 1) * std) * (std < margin) / D
                """),
                "a squared hinge's": ("count what is averaged", """
                    V, N, D = z.shape
                    std = torch.sqrt(z.var(dim=1, keepdim=True) + eps)
                    return -(z - z.mean(dim=1, keepdim=True)) / ((N - 1) * std) * F.relu(margin - std) / (V * D)
                """),
                "no hinge": ("beyond the margin", """
                    V, N, D = z.shape
                    std = torch.sqrt(z.var(dim=1, keepdim=True) + eps)
                    return -(z - z.mean(dim=1, keepdim=True)) / ((N - 1) * std) / (V * D)
                """),
                "no minus": ("the sign", """
                    V, N, D = z.shape
                    std = torch.sqrt(z.var(dim=1, keepdim=True) + eps)
                    return (z - z.mean(dim=1, keepdim=True)) / ((N - 1) * std) * (std < margin) / (V * D)
                """),
                "eps beside the root": ("under the root", """
                    V, N, D = z.shape
                    std = z.std(dim=1, keepdim=True) + eps
                    return -(z - z.mean(dim=1, keepdim=True)) / ((N - 1) * std) * (std < margin) / (V * D)
                """),
                "one number per dimension": ("for every entry of z", """
                    V, N, D = z.shape
                    return -1.0 * (torch.sqrt(z.var(dim=1) + eps) < margin) / (V * D)
                """),
            },
        },
        "decorrelation": {
            "right": {
                "float64": """
                    V, N, D = z.shape
                    r = torch.stack([torch.corrcoef(view.T) for view in z.double()])
                    return (r.square().sum(dim=(1, 2)) / D - 1).mean()
                """,
                "torch.corrcoef": """
                    V, N, D = z.shape
                    squares = torch.stack([torch.corrcoef(view.T).square().sum() for view in z])
                    return (squares / D - 1).mean()
                """,
                "the covariance, divided": """
                    V, N, D = z.shape
                    z = z - z.mean(dim=1, keepdim=True)
                    C = z.mT @ z / (N - 1)
                    std = C.diagonal(dim1=1, dim2=2).sqrt()
                    C = C / (std[:, :, None] * std[:, None, :])
                    return C[:, ~torch.eye(D, dtype=torch.bool)].square().sum() / (V * D)
                """,
                "cosines between columns": """
                    u = F.normalize(z - z.mean(dim=1, keepdim=True), dim=1)
                    r = torch.einsum("vni,vnj->vij", u, u)
                    return (r - torch.eye(z.shape[2])).square().sum(dim=(1, 2)).mean() / z.shape[2]
                """,
            },
            "wrong": {
                "only centred": ("shrinking the cloud", "return covariance(z - z.mean(dim=1, keepdim=True))"),
                "divides by the variance": ("shrinking the cloud", "return covariance(z / z.var(dim=1, keepdim=True))"),
                "one std for all": ("scaling single dimensions", "return covariance(z / z.std())"),
                "lengths of embeddings": ("scaling single dimensions", "return covariance(F.normalize(z, dim=2))"),
                "N and N - 1 mixed": ("r = 1", "return covariance(z / z.std(dim=1, keepdim=True, correction=0))"),
                "the diagonal counts": ("six copies", """
                    return torch.stack([torch.corrcoef(view.T).square().sum() for view in z]).mean() / z.shape[2]
                """),
                "a mean over all pairs": ("six copies", "return covariance(z / z.std(dim=1, keepdim=True)) / 5"),
                "a sum over views": ("six copies", """
                    r = torch.stack([torch.corrcoef(view.T) for view in z])
                    return (r - torch.eye(z.shape[2])).square().sum() / z.shape[2]
                """),
                "no squares": ("it is the covariance term", """
                    r = torch.stack([torch.corrcoef(view.T) for view in z])
                    return (r - torch.eye(z.shape[2])).abs().sum() / (len(z) * z.shape[2])
                """),
            },
        },
    },
    "05_sigreg": {
        "collapsed_score": {
            "right": {
                "one place at a time": """
                    root = math.sqrt(2 * math.pi)
                    scores = [root * (1 - math.sqrt(2) * math.exp(-x * x / 4) + 1 / math.sqrt(3)) for x in c.tolist()]
                    return torch.tensor(scores)
                """,
                "the three integrals": """
                    def integral(a, c):
                        return (2 * math.pi / a) ** 0.5 * torch.exp(-c**2 / (2 * a))

                    c, zero = c.double(), torch.zeros(1)
                    return integral(1, zero) - 2 * integral(2, c) + integral(3, zero)
                """,
                "adds up strips": """
                    t = torch.linspace(-8, 8, 2001, dtype=torch.float64)
                    away = torch.exp(1j * t * c[:, None]) - torch.exp(-t.square() / 2)
                    return torch.trapezoid(away.abs().square() * torch.exp(-t.square() / 2), t)
                """,
            },
            "wrong": {
                "a middle term without c": ("does your middle term depend on c", """
                    tau = 2 * math.pi
                    return (math.sqrt(tau) - 2 * math.sqrt(tau / 2) + math.sqrt(tau / 3)) * torch.ones_like(c)
                """),
                "no 2 in the middle": ("at c = 0: the integral", """
                    tau = 2 * math.pi
                    return math.sqrt(tau) - math.sqrt(tau / 2) * torch.exp(-c.square() / 4) + math.sqrt(tau / 3)
                """),
                "the last term without window": ("at c = 0: the integral", """
                    tau = 2 * math.pi
                    return math.sqrt(tau) - 2 * math.sqrt(tau / 2) * torch.exp(-c.square() / 4) + math.sqrt(tau / 2)
                """),
                "a outside the root": ("at c = 0: the integral", """
                    tau = 2 * math.pi
                    return math.sqrt(tau) - 2 * math.sqrt(tau) / 2 * torch.exp(-c.square() / 4) + math.sqrt(tau) / 3
                """),
                "the exponent of a = 1": ("a fine grid", """
                    tau = 2 * math.pi
                    return math.sqrt(tau) - 2 * math.sqrt(tau / 2) * torch.exp(-c.square() / 2) + math.sqrt(tau / 3)
                """),
                "c not squared": ("a fine grid", """
                    tau = 2 * math.pi
                    return math.sqrt(tau) - 2 * math.sqrt(tau / 2) * torch.exp(-c / 4) + math.sqrt(tau / 3)
                """),
                "the mean of all places": ("one score per place", """
                    tau = 2 * math.pi
                    middle = 2 * math.sqrt(tau / 2) * torch.exp(-c.square() / 4).mean()
                    return math.sqrt(tau) - middle + math.sqrt(tau / 3)
                """),
            },
        },
        "moments": {
            "right": {
                "term by term": """
                    x = z @ directions
                    first, second, third, fourth = (x.pow(k).mean(1) for k in (1, 2, 3, 4))
                    return (first**2 + (second - 1) ** 2 + third**2 + (fourth - 3) ** 2).mean()
                """,
                "einsum": """
                    x = torch.einsum("vnd,dk->vkn", z.double(), directions.double())
                    powers = torch.stack([x, x**2, x**3, x**4]).mean(dim=-1)  # (4, V, K)
                    wanted = torch.tensor([0.0, 1, 0, 3])[:, None, None]
                    return (powers - wanted).square().sum(dim=0).mean()
                """,
                "one shadow at a time": """
                    scores = []
                    for view in z:
                        for direction in directions.T:
                            x = view @ direction
                            means = torch.stack([(x**k).mean() for k in range(1, 5)])
                            scores.append((means - torch.tensor([0.0, 1, 0, 3])).square().sum())
                    return sum(scores) / len(scores)
                """,
            },
            "wrong": {
                "averages before it squares": ("square for each view and slice", """
                    x = z @ directions
                    return sum((x.pow(k).mean() - m).square() for k, m in zip((1, 2, 3, 4), (0, 1, 0, 3)))
                """),
                "pools the views": ("square for each view and slice", """
                    x = z @ directions
                    found = [x.pow(k).mean(dim=(0, 1)) for k in (1, 2, 3, 4)]
                    return sum((m - normal).square() for m, normal in zip(found, (0, 1, 0, 3))).mean()
                """),
                "no directions": ("square for each view and slice", """
                    return sum((z.pow(k).mean(dim=1) - m).square() for k, m in zip((1, 2, 3, 4), (0, 1, 0, 3))).mean()
                """),
                "moments about the mean": ("about 0 and not the mean", """
                    x = z @ directions
                    x = x - x.mean(dim=1, keepdim=True)
                    return sum((x.pow(k).mean(1) - m).square() for k, m in zip((1, 2, 3, 4), (0, 1, 0, 3))).mean()
                """),
                "excess for the fourth": ("0 + 1 + 0 + 9", """
                    x = z @ directions
                    return sum((x.pow(k).mean(1) - m).square() for k, m in zip((1, 2, 3, 4), (0, 1, 0, 0))).mean()
                """),
                "differences not squared": ("0 + 1 + 0 + 9", """
                    x = z @ directions
                    return sum((x.pow(k).mean(1) - m).abs() for k, m in zip((1, 2, 3, 4), (0, 1, 0, 3))).mean()
                """),
                "the mean of the four": ("0 + 1 + 0 + 9", """
                    powers = torch.stack([(z @ directions).pow(k).mean(dim=1) for k in (1, 2, 3, 4)])
                    return (powers - torch.tensor([0.0, 1, 0, 3])[:, None, None]).square().mean()
                """),
                "a sum over slices": ("0 + 1 + 0 + 9", """
                    x = z @ directions
                    return sum((x.pow(k).mean(1) - m).square() for k, m in zip((1, 2, 3, 4), (0, 1, 0, 3))).sum()
                """),
                "a mean over views": ("a Gaussian should score near 0", """
                    x = z @ directions
                    return sum((x.pow(k).mean(0) - m).square() for k, m in zip((1, 2, 3, 4), (0, 1, 0, 3))).mean()
                """),
                "squares before the mean": ("a Gaussian should score near 0", """
                    x = z @ directions
                    return sum((x.pow(k) - m).square().mean() for k, m in zip((1, 2, 3, 4), (0, 1, 0, 3)))
                """),
            },
        },
        "blind_spot": {
            "right": {
                "counted heaps": """
                    sixth = torch.full((N // 6, 1), 3**0.5)
                    return torch.cat([sixth, -sixth, torch.zeros(N - 2 * len(sixth), 1)])
                """,
                "multinomial": """
                    heap = torch.multinomial(torch.tensor([1.0, 4, 1]), N, replacement=True, generator=g)
                    return torch.tensor([-math.sqrt(3), 0, math.sqrt(3)])[heap, None]
                """,
                "dice": """
                    dice = torch.randint(6, (N, 1), generator=g)
                    return math.sqrt(3) * ((dice == 0).float() - (dice == 5).float())
                """,
            },
            "wrong": {
                "two heaps": ("should please `moments`", """
                    return 2 * torch.randint(2, (N, 1), generator=g).float() - 1
                """),
                "three equal heaps": ("should please `moments`", """
                    return math.sqrt(1.5) * (torch.randint(3, (N, 1), generator=g).float() - 1)
                """),
                "uniform": ("should please `moments`", "return math.sqrt(12) * (torch.rand(N, 1, generator=g) - 0.5)"),
                "a Gaussian": ("make that 10 or more", "return torch.randn(N, 1, generator=g)"),
                "no second axis": ("a tensor (N, 1)", """
                    heap = torch.multinomial(torch.tensor([1.0, 4, 1]), N, replacement=True, generator=g)
                    return math.sqrt(3) * (heap - 1)
                """),
            },
        },
    },
    "05b_sigreg_in_depth": {
        "same_pressure": {
            "right": {
                "odds": """
                    odds = lmbd / (1 - lmbd) * N / new_N
                    return odds / (1 + odds)
                """,
                "one over": "return 1 / (1 + (1 - lmbd) / lmbd * new_N / N)",
                "halving an interval": """
                    low, high, wanted = 0.0, 1.0, lmbd * N / (1 - lmbd)
                    for _ in range(50):
                        middle = (low + high) / 2
                        low, high = (middle, high) if middle * new_N / (1 - middle) < wanted else (low, middle)
                    return low
                """,
                "logit": "return torch.sigmoid(torch.logit(torch.tensor(lmbd)) + math.log(N / new_N))",
            },
            "wrong": {
                "for small weights only": ("SIGReg now weighs", "return lmbd * N / new_N"),
                "forgets 1 - lmbd": ("SIGReg now weighs", "return lmbd * N / (lmbd * N + new_N)"),
                "the batch cancels": ("SIGReg now weighs 4.000 times", "return lmbd"),
                "the wrong way round": ("SIGReg now weighs", "return lmbd * new_N / (lmbd * new_N + N * (1 - lmbd))"),
                "odds for a share": ("SIGReg now weighs", "return lmbd * N / (1 - lmbd) / new_N"),
                "a square root": ("SIGReg now weighs", "return lmbd * math.sqrt(N / new_N)"),
                "whole numbers": ("It must stay a share", "return lmbd * (N // new_N)"),
            },
        },
        "sized_sigreg": {
            "right": {
                "clamped under the root": """
                    std = z.var(dim=1, keepdim=True).clamp(min=1e-12).sqrt()
                    return (1 - std).square().mean() + losses.sigreg(z / std.detach(), directions)
                """,
                "torch.std, whose gradient at 0 is 0": """
                    std = z.std(dim=1, keepdim=True) + 1e-8
                    return (1 - std).square().mean() + losses.sigreg(z / std.detach(), directions)
                """,
                "the std without a gradient": """
                    size = (1 - (z.var(dim=1) + 1e-10).sqrt()).pow(2).mean()
                    with torch.no_grad():
                        std = (z.var(dim=1, keepdim=True) + 1e-10).sqrt()
                    return size + losses.sigreg(z / std, directions)
                """,
                "from the squares": """
                    centred = z - z.mean(dim=1, keepdim=True)
                    std = (centred.square().mean(dim=1, keepdim=True) + 1e-9) ** 0.5
                    return F.mse_loss(std, torch.ones_like(std)) + losses.sigreg(z / std.data, directions)
                """,
            },
            "wrong": {
                "SIGReg of the raw cloud": ("its size alone", """
                    std = torch.sqrt(z.var(dim=1, keepdim=True) + 1e-8)
                    return (1 - std).square().mean() + losses.sigreg(z, directions)
                """),
                "VICReg's eps": ("its size alone", """
                    std = torch.sqrt(z.var(dim=1, keepdim=True) + 1e-4)
                    return (1 - std).square().mean() + losses.sigreg(z / std.detach(), directions)
                """),
                "variance for std": ("(0 + 1/4) / 2", """
                    std = torch.sqrt(z.var(dim=1, keepdim=True) + 1e-8)
                    return (1 - std**2).square().mean() + losses.sigreg(z / std.detach(), directions)
                """),
                "not squared": ("(0 + 1/4) / 2", """
                    std = torch.sqrt(z.var(dim=1, keepdim=True) + 1e-8)
                    return (1 - std).mean() + losses.sigreg(z / std.detach(), directions)
                """),
                "one std for all": ("(0 + 1/4) / 2", """
                    std = torch.sqrt(z.var() + 1e-8)
                    return (1 - std).square() + losses.sigreg(z / std.detach(), directions)
                """),
                "size without a gradient": ("is the size term detached", """
                    std = torch.sqrt(z.var(dim=1, keepdim=True) + 1e-8).detach()
                    return (1 - std).square().mean() + losses.sigreg(z / std, directions)
                """),
                "std not constant": ("std as a constant", """
                    std = torch.sqrt(z.var(dim=1, keepdim=True) + 1e-8)
                    return (1 - std).square().mean() + losses.sigreg(z / std, directions)
                """),
                "no size term": ("its size", """
                    std = torch.sqrt(z.var(dim=1, keepdim=True) + 1e-8)
                    return losses.sigreg(z / std.detach(), directions)
                """),
                "no SIGReg": ("a shift should be seen", """
                    return (1 - torch.sqrt(z.var(dim=1) + 1e-8)).square().mean()
                """),
                "centres the cloud": ("a shift should be seen", """
                    std = torch.sqrt(z.var(dim=1, keepdim=True) + 1e-8)
                    z = z - z.mean(dim=1, keepdim=True)
                    return (1 - std).square().mean() + losses.sigreg(z / std.detach(), directions)
                """),
                "no eps": ("not finite", """
                    std = z.std(dim=1, keepdim=True)
                    return (1 - std).square().mean() + losses.sigreg(z / std.detach(), directions)
                """),
                "eps beside the root": ("not finite", """
                    std = z.var(dim=1, keepdim=True).sqrt() + 1e-8
                    return (1 - std).square().mean() + losses.sigreg(z / std.detach(), directions)
                """),
                "wrong axis": ("a Gaussian should score near 0", """
                    std = torch.sqrt(z.var(dim=0, keepdim=True) + 1e-8)
                    return (1 - std).square().mean() + losses.sigreg(z / std.detach(), directions)
                """),
            },
        },
    },
    "06_training_at_full_scale": {
        "lr_plateau": {
            "right": {
                "float32 rates": """
                    rising, falling = round(warmup * steps), round(decay * steps)
                    rates = torch.full((steps,), lr)
                    rates[:rising] = torch.linspace(0, lr, rising + 1)[1:]
                    rates[steps - falling - 1 :] = torch.linspace(lr, final * lr, falling + 1)
                    return rates[step].item()
                """,
                "the lowest of three lines": """
                    rising, falling = round(warmup * steps), round(decay * steps)
                    up = (step + 1) / rising if rising else 1
                    down = final + (1 - final) * (steps - 1 - step) / falling
                    return lr * min(up, 1, down)
                """,
                "the fall begins one step later": """
                    rising, start = int(warmup * steps), steps - int(decay * steps)
                    if step < rising:
                        return lr / rising * (step + 1)
                    if step < start:
                        return lr
                    progress = (step - start) / (steps - 1 - start)  # 0 at the plateau, 1 at the last step
                    return (1 - progress) * lr + progress * final * lr
                """,
                "a line through two points": """
                    rising, last = round(warmup * steps), steps - 1
                    if step < rising:
                        return torch.linspace(0, lr, rising + 1, dtype=torch.float64)[step + 1].item()
                    corner = last - round(decay * steps)
                    slope = (final * lr - lr) / (last - corner)
                    return lr + max(0, step - corner) * slope
                """,
            },
            "wrong": {
                "final on top": ("from 80 on, should fall", """
                    rising, falling, left = round(warmup * steps), round(decay * steps), steps - 1 - step
                    if step < rising:
                        return lr * (step + 1) / rising
                    return lr if left >= falling else lr * left / falling + final * lr
                """),
                "rises from 0": ("a tenth of the peak", """
                    rising, falling, left = round(warmup * steps), round(decay * steps), steps - 1 - step
                    if step < rising:
                        return lr * step / rising
                    return lr if left >= falling else lr * (final + (1 - final) * left / falling)
                """),
                "ends a step too late": ("the last step, 99", """
                    rising, falling, left = round(warmup * steps), round(decay * steps), steps - step
                    if step < rising:
                        return lr * (step + 1) / rising
                    return lr if left >= falling else lr * (final + (1 - final) * left / falling)
                """),
                "falls to 0": ("at final * lr", """
                    rising, falling, left = round(warmup * steps), round(decay * steps), steps - 1 - step
                    if step < rising:
                        return lr * (step + 1) / rising
                    return lr if left >= falling else lr * left / falling
                """),
                "final is no share": ("at final * lr", """
                    rising, falling, left = round(warmup * steps), round(decay * steps), steps - 1 - step
                    if step < rising:
                        return lr * (step + 1) / rising
                    return lr if left >= falling else final + (lr - final) * left / falling
                """),
                "a cosine falls": ("the same amount", """
                    rising, falling, left = round(warmup * steps), round(decay * steps), steps - 1 - step
                    if step < rising:
                        return lr * (step + 1) / rising
                    if left >= falling:
                        return lr
                    return lr * (final + (1 - final) * (1 - math.cos(math.pi * left / falling)) / 2)
                """),
                "a constant factor": ("the same amount", """
                    rising, falling, left = round(warmup * steps), round(decay * steps), steps - 1 - step
                    if step < rising:
                        return lr * (step + 1) / rising
                    return lr if left >= falling else lr * final ** (1 - left / falling)
                """),
                "no plateau": ("should not move", """
                    rising = round(warmup * steps)
                    if step < rising:
                        return lr * (step + 1) / rising
                    return lr * (final + (1 - final) * (steps - 1 - step) / (steps - rising))
                """),
                "decay counts after the rise": ("from 80 on", """
                    rising = round(warmup * steps)
                    falling, left = round(decay * (steps - rising)), steps - 1 - step
                    if step < rising:
                        return lr * (step + 1) / rising
                    return lr if left >= falling else lr * (final + (1 - final) * left / falling)
                """),
                "needs a warm-up": ("division by zero", """
                    rising, falling = warmup * steps, decay * steps
                    down = final + (1 - final) * (steps - 1 - step) / falling
                    return lr * min(1, (step + 1) / rising, down)
                """),
            },
        },
        "accumulated": {
            "right": {
                "slices": """
                    n = z.shape[1] // parts
                    return torch.stack([term(z[:, i * n : (i + 1) * n]) for i in range(parts)]).mean()
                """,
                "every so many images": "return sum(term(z[:, i::parts]) for i in range(parts)) / parts",
                "unflatten": """
                    values = [term(part) for part in z.unflatten(1, (parts, -1)).unbind(1)]
                    return sum(values) / len(values)
                """,
            },
            "wrong": {
                "splits the views": ("at least 2 views", """
                    return sum(term(part) for part in z.chunk(parts)) / parts
                """),
                "splits the dimensions": ("split along dim 1", """
                    return sum(term(part) for part in z.chunk(parts, dim=2)) / parts
                """),
                "mixes views": ("are both views in the same part", """
                    V, N, D = z.shape
                    return sum(term(part) for part in z.reshape(parts, V, N // parts, D)) / parts
                """),
                "parts of that many images": ("at least 2 images", """
                    pieces = z.split(parts, dim=1)
                    return sum(term(part) for part in pieces) / len(pieces)
                """),
                "a sum": ("averages to the whole", "return sum(term(part) for part in z.chunk(parts, dim=1))"),
                "the whole each time": ("two images vary less", "return sum(term(z) for _ in range(parts)) / parts"),
                "the first part for all": ("averages to the whole", "return term(z.chunk(parts, dim=1)[0])"),
                "averages the embeddings": ("averages to the whole", """
                    return term(torch.stack(z.chunk(parts, dim=1)).mean(dim=0))
                """),
            },
        },
    },
    "07_linear_probe_and_beyond": {
        "compare": {
            "right": {
                "counts disagreements": """
                    N, gained, lost = len(one), (one & ~two).sum().item(), (two & ~one).sum().item()
                    difference = (gained - lost) / N
                    return 100 * difference, 100 * ((gained + lost) / N - difference**2) ** 0.5 / N**0.5
                """,
                "variances and covariance": """
                    pair = 100 * torch.stack([one, two]).double()
                    C = torch.cov(pair)
                    error = ((C[0, 0] + C[1, 1] - 2 * C[0, 1]).clamp(min=0) / len(one)).sqrt()
                    return pair[0].mean() - pair[1].mean(), error
                """,
                "NumPy": """
                    each = one.numpy().astype(float) - two.numpy()
                    return 100 * each.mean(), 100 * each.std() / len(each) ** 0.5
                """,
            },
            "wrong": {
                "subtracts true and false": ("NotImplementedError: Subtraction", """
                    each = 100 * (one - two)
                    return each.mean().item(), (each.std() / len(each) ** 0.5).item()
                """),
                "two minus one": ("not two minus one", """
                    each = 100 * (two.float() - one.float())
                    return each.mean().item(), (each.std() / len(each) ** 0.5).item()
                """),
                "shares for points": ("in points", """
                    each = one.float() - two.float()
                    return each.mean().item(), (each.std() / len(each) ** 0.5).item()
                """),
                "two independent tests": ("pair them by image", """
                    a, b = (100 * right.float().mean().item() for right in (one, two))
                    errors = [probe.standard_error(percent, len(one)) for percent in (a, b)]
                    return a - b, (errors[0] ** 2 + errors[1] ** 2) ** 0.5
                """),
                "the spread of single images": ("their mean has less", """
                    each = 100 * (one.float() - two.float())
                    return each.mean().item(), each.std().item()
                """),
                "N without its root": ("over the root of N", """
                    each = 100 * (one.float() - two.float())
                    return each.mean().item(), each.std().item() / len(each)
                """),
                "the variance": ("over the root of N", """
                    each = 100 * (one.float() - two.float())
                    return each.mean().item(), each.var().item() / len(each)
                """),
                "the difference as an accuracy": ("over the root of N", """
                    percent = 100 * (one.float().mean() - two.float().mean()).item()
                    return percent, probe.standard_error(abs(percent), len(one))
                """),
                "the error of one alone": ("differs from itself by 0", """
                    a, b = (100 * right.float().mean().item() for right in (one, two))
                    return a - b, probe.standard_error(a, len(one))
                """),
            },
        },
        "cross_validated": {
            "right": {
                "a random order": """
                    order, scores = torch.randperm(len(y), generator=generator(0)), []
                    for held_out in order.chunk(folds):
                        rest = order[~torch.isin(order, held_out)]
                        scores.append(accuracy(fit(h[rest], y[rest])(h[held_out]), y[held_out]))
                    return sum(scores) / len(scores)
                """,
                "every so many rows": """
                    scores = []
                    for i in range(folds):
                        kept = torch.ones(len(y), dtype=torch.bool)
                        kept[i::folds] = False
                        guess = fit(h[kept], y[kept])(h[i::folds]).argmax(dim=1)
                        scores.append(100 * (guess == y[i::folds]).float().mean())
                    return torch.stack(scores).mean()
                """,
                "scikit-learn's folds": """
                    from sklearn.model_selection import StratifiedKFold
                    parts = StratifiedKFold(folds, shuffle=True, random_state=0).split(h, y)
                    right = sum((fit(h[a], y[a])(h[b]).argmax(1) == y[b]).sum().item() for a, b in parts)
                    return 100 * right / len(y)
                """,
            },
            "wrong": {
                "slices of sorted images": ("mix before you cut", """
                    fold, scores = torch.arange(len(y)) * folds // len(y), []
                    for i in range(folds):
                        scores_of = fit(h[fold != i], y[fold != i])
                        scores.append(accuracy(scores_of(h[fold == i]), y[fold == i]))
                    return sum(scores) / folds
                """),
                "fits on everything": ("on nothing that is tested", """
                    fold, scores = torch.arange(len(y)) % folds, []
                    for i in range(folds):
                        scores.append(accuracy(fit(h, y)(h[fold == i]), y[fold == i]))
                    return sum(scores) / folds
                """),
                "fits on one part": ("test each image exactly once", """
                    fold, scores = torch.arange(len(y)) % folds, []
                    for i in range(folds):
                        scores_of = fit(h[fold == i], y[fold == i])
                        scores.append(accuracy(scores_of(h[fold != i]), y[fold != i]))
                    return sum(scores) / folds
                """),
                "a fresh draw for each fold": ("test each image exactly once", """
                    scores = []
                    for i in range(folds):
                        rest, held_out = validation_split(len(y), 1 / folds, seed=i)
                        scores.append(accuracy(fit(h[rest], y[rest])(h[held_out]), y[held_out]))
                    return sum(scores) / folds
                """),
                "one fold": ("one fit and one test for each fold", """
                    rest, held_out = validation_split(len(y), 1 / folds)
                    return accuracy(fit(h[rest], y[rest])(h[held_out]), y[held_out])
                """),
                "mixes the features alone": ("features and labels should stay together", """
                    h = h[torch.randperm(len(h), generator=generator(0))]
                    fold, scores = torch.arange(len(y)) % folds, []
                    for i in range(folds):
                        scores_of = fit(h[fold != i], y[fold != i])
                        scores.append(accuracy(scores_of(h[fold == i]), y[fold == i]))
                    return sum(scores) / folds
                """),
                "a share for percent": ("in percent", """
                    fold, scores = torch.arange(len(y)) % folds, []
                    for i in range(folds):
                        guess = fit(h[fold != i], y[fold != i])(h[fold == i]).argmax(dim=1)
                        scores.append((guess == y[fold == i]).float().mean())
                    return sum(scores) / folds
                """),
                "the best fold": ("the mean accuracy", """
                    fold, scores = torch.arange(len(y)) % folds, []
                    for i in range(folds):
                        scores_of = fit(h[fold != i], y[fold != i])
                        scores.append(accuracy(scores_of(h[fold == i]), y[fold == i]))
                    return max(scores)
                """),
            },
        },
    },
    "08_the_family": {
        "uniformity": {
            "right": {
                "a matrix without its diagonal": """
                    u = z / z.norm(dim=1, keepdim=True)
                    potential = torch.exp(-2 * (u[:, None] - u).square().sum(dim=2))
                    return torch.log(potential[~torch.eye(len(z), dtype=torch.bool)].mean())
                """,
                "cosines": """
                    u = F.normalize(z, dim=-1)
                    potential = torch.exp(-2 * (2 - 2 * u @ u.T)).triu(diagonal=1)
                    return (potential.sum() / (len(z) * (len(z) - 1) / 2)).log()
                """,
                "logsumexp": """
                    squares = torch.pdist(F.normalize(z)) ** 2
                    return torch.logsumexp(-2 * squares, dim=0) - math.log(len(squares))
                """,
                "pair by pair": """
                    u = F.normalize(z.double(), dim=1)
                    pairs = [(i, j) for i in range(len(u)) for j in range(len(u)) if i != j]
                    return torch.stack([torch.exp(-2 * ((u[i] - u[j]) ** 2).sum()) for i, j in pairs]).mean().log()
                """,
            },
            "wrong": {
                "divides z itself": ("should not change", """
                    z /= z.norm(dim=1, keepdim=True)
                    pairs = torch.pdist(z).square()
                    return (-2 * pairs).exp().mean().log()
                """),
                "each with itself": ("i = j does not count", """
                    u = F.normalize(z, dim=1)
                    return torch.cdist(u, u).square().mul(-2).exp().mean().log()
                """),
                "no log": ("log 1 = 0", "return torch.pdist(F.normalize(z, dim=1)).square().mul(-2).exp().mean()"),
                "pairs counted as N squared": ("log 1 = 0", """
                    potential = torch.pdist(F.normalize(z, dim=1)).square().mul(-2).exp()
                    return (2 * potential.sum() / len(z) ** 2).log()
                """),
                "embeddings for directions": ("lengths should not matter", """
                    return torch.pdist(z).square().mul(-2).exp().mean().log()
                """),
                "wrong axis": ("lengths should not matter", """
                    return torch.pdist(F.normalize(z, dim=0)).square().mul(-2).exp().mean().log()
                """),
                "distances not squared": ("|u - v|^2 is 2", """
                    return torch.pdist(F.normalize(z, dim=1)).mul(-2).exp().mean().log()
                """),
                "no 2": ("|u - v|^2 is 2", """
                    return torch.pdist(F.normalize(z, dim=1)).square().neg().exp().mean().log()
                """),
                "the log first": ("the mean before the log", """
                    return torch.pdist(F.normalize(z, dim=1)).square().mul(-2).mean()
                """),
                "a log for each row": ("one number", """
                    u = F.normalize(z, dim=1)
                    return (torch.exp(-2 * torch.cdist(u, u) ** 2).sum(dim=1) - 1).div(len(z) - 1).log()
                """),
            },
        },
        "barlow_twins": {
            "right": {
                "float64": """
                    one, two = F.normalize(z.double() - z.double().mean(dim=1, keepdim=True), dim=1)
                    C, same = one.T @ two, torch.eye(z.shape[2], dtype=torch.bool)
                    return {"pull": (1 - C[same]).square().sum(), "push": weight * C[~same].square().sum()}
                """,
                "torch.corrcoef": """
                    D = z.shape[2]
                    C = torch.corrcoef(torch.cat([z[0], z[1]], dim=1).T)[:D, D:]
                    pull = (C.diagonal() - 1).pow(2).sum()
                    return {"push": weight * (C.fill_diagonal_(0) ** 2).sum(), "pull": pull}
                """,
                "cosines between columns": """
                    one, two = F.normalize(z - z.mean(dim=1, keepdim=True), dim=1)
                    C, same = one.T @ two, torch.eye(z.shape[2], dtype=torch.bool)
                    return {"pull": (1 - C[same]).square().sum(), "push": weight * C[~same].square().sum()}
                """,
                "two loops": """
                    one, two = (view.double() for view in z)
                    one, two = ((x - x.mean(0)) / x.std(0) for x in (one, two))
                    terms, N, D = {"pull": 0, "push": 0}, z.shape[1], z.shape[2]
                    for i in range(D):
                        for j in range(D):
                            c = one[:, i] @ two[:, j] / (N - 1)
                            terms["pull" if i == j else "push"] += (1 - c) ** 2 if i == j else weight * c**2
                    return {name: term.float() for name, term in terms.items()}
                """,
            },
            "wrong": {
                "the push is not squared": ("C_ij^2", """
                    z = (z - z.mean(dim=1, keepdim=True)) / z.std(dim=1, keepdim=True, correction=0)
                    C = z[0].T @ z[1] / z.shape[1]
                    off = C - C.diagonal().diag()
                    return {"pull": (1 - C.diagonal()).square().sum(), "push": weight * off.sum()}
                """),
                "N and N - 1 mixed": ("mind N and N - 1", """
                    z = (z - z.mean(dim=1, keepdim=True)) / z.std(dim=1, keepdim=True)
                    C = z[0].T @ z[1] / z.shape[1]
                    off = C - C.diagonal().diag()
                    return {"pull": (1 - C.diagonal()).square().sum(), "push": weight * off.square().sum()}
                """),
                "not centred": ("standardise over the batch", """
                    one, two = F.normalize(z, dim=1)
                    C = one.T @ two
                    off = C - C.diagonal().diag()
                    return {"pull": (1 - C.diagonal()).square().sum(), "push": weight * off.square().sum()}
                """),
                "not scaled": ("every C_ii is 1", """
                    z = z - z.mean(dim=1, keepdim=True)
                    C = z[0].T @ z[1] / z.shape[1]
                    off = C - C.diagonal().diag()
                    return {"pull": (1 - C.diagonal()).square().sum(), "push": weight * off.square().sum()}
                """),
                "standardises each embedding": ("every C_ii is 1", """
                    z = (z - z.mean(dim=2, keepdim=True)) / z.std(dim=2, keepdim=True, correction=0)
                    C = z[0].T @ z[1] / z.shape[1]
                    off = C - C.diagonal().diag()
                    return {"pull": (1 - C.diagonal()).square().sum(), "push": weight * off.square().sum()}
                """),
                "the diagonal is pushed too": ("20 ones off the diagonal", """
                    z = (z - z.mean(dim=1, keepdim=True)) / z.std(dim=1, keepdim=True, correction=0)
                    C = z[0].T @ z[1] / z.shape[1]
                    return {"pull": (1 - C.diagonal()).square().sum(), "push": weight * C.square().sum()}
                """),
                "the weight left out": ("20 ones off the diagonal", """
                    z = (z - z.mean(dim=1, keepdim=True)) / z.std(dim=1, keepdim=True, correction=0)
                    C = z[0].T @ z[1] / z.shape[1]
                    off = C - C.diagonal().diag()
                    return {"pull": (1 - C.diagonal()).square().sum(), "push": off.square().sum()}
                """),
                "the pull is not squared": ("(1 - C_ii)^2, summed", """
                    z = (z - z.mean(dim=1, keepdim=True)) / z.std(dim=1, keepdim=True, correction=0)
                    C = z[0].T @ z[1] / z.shape[1]
                    off = C - C.diagonal().diag()
                    return {"pull": (1 - C.diagonal()).sum(), "push": weight * off.square().sum()}
                """),
                "the pull is averaged": ("(1 - C_ii)^2, summed", """
                    z = (z - z.mean(dim=1, keepdim=True)) / z.std(dim=1, keepdim=True, correction=0)
                    C = z[0].T @ z[1] / z.shape[1]
                    off = C - C.diagonal().diag()
                    return {"pull": (1 - C.diagonal()).square().mean(), "push": weight * off.square().sum()}
                """),
                "pushes within a view": ("view 1 with view 2", """
                    z = (z - z.mean(dim=1, keepdim=True)) / z.std(dim=1, keepdim=True, correction=0)
                    C, own = z[0].T @ z[1] / z.shape[1], z[0].T @ z[0] / z.shape[1]
                    off = own - own.diagonal().diag()
                    return {"pull": (1 - C.diagonal()).square().sum(), "push": weight * off.square().sum()}
                """),
                "a pair of terms": ("two terms by name", """
                    z = (z - z.mean(dim=1, keepdim=True)) / z.std(dim=1, keepdim=True, correction=0)
                    C = z[0].T @ z[1] / z.shape[1]
                    off = C - C.diagonal().diag()
                    return (1 - C.diagonal()).square().sum(), weight * off.square().sum()
                """),
            },
        },
    },
    "09_masks": {
        "scattered": {
            "right": {
                "argsort of noise": """
                    order = torch.rand(side * side, generator=g).argsort()
                    target, context = order.tensor_split([int(hidden * side * side)])
                    return context, target
                """,
                "a mask": """
                    n = side * side
                    mask = torch.zeros(n, dtype=torch.bool)
                    mask[torch.randperm(n, generator=g)[: int(n * hidden)]] = True
                    return (~mask).nonzero().flatten(), mask.nonzero().flatten()
                """,
                "multinomial": """
                    everyone = torch.arange(side**2)
                    target = torch.multinomial(torch.ones(side**2), round(side**2 * hidden), generator=g)
                    return everyone[~torch.isin(everyone, target)], target
                """,
            },
            "wrong": {
                "columns of numbers": ("by its number: (T,)", """
                    mask = torch.zeros(side * side, dtype=torch.bool)
                    mask[torch.randperm(side * side, generator=g)[: round(hidden * side * side)]] = True
                    return (~mask).nonzero(), mask.nonzero()
                """),
                "a coin for each token": ("half of 64 tokens are hidden", """
                    mask = torch.rand(side * side, generator=g) < hidden
                    return (~mask).nonzero()[:, 0], mask.nonzero()[:, 0]
                """),
                "draws some twice": ("each token once", """
                    n = side * side
                    target = torch.randint(n, (round(hidden * n),), generator=g)
                    return torch.tensor([i for i in range(n) if i not in target]), target
                """),
                "forgets g": ("use the generator g", """
                    order = torch.randperm(side * side)
                    count = round(hidden * side * side)
                    return order[count:], order[:count]
                """),
                "a generator of its own": ("another generator should give another layout", """
                    order = torch.randperm(side * side, generator=generator(0))
                    count = round(hidden * side * side)
                    return order[count:], order[:count]
                """),
                "target before context": ("a quarter of 36 tokens", """
                    order = torch.randperm(side * side, generator=g)
                    count = round(hidden * side * side)
                    return order[:count], order[count:]
                """),
                "always half": ("a quarter of 36 tokens", """
                    order = torch.randperm(side * side, generator=g)
                    return order.chunk(2)
                """),
                "a share of the side": ("half of 64 tokens are hidden", """
                    order = torch.randperm(side * side, generator=g)
                    return order[round(hidden * side) :], order[: round(hidden * side)]
                """),
                "masks for numbers": ("each token once", """
                    mask = torch.zeros(side * side, dtype=torch.bool)
                    mask[torch.randperm(side * side, generator=g)[: round(hidden * side * side)]] = True
                    return ~mask, mask
                """),
                "whole rows": ("each token once", """
                    rows = torch.randperm(side, generator=g)
                    return rows[side // 2 :], rows[: side // 2]
                """),
            },
        },
        "copy_nearest": {
            "right": {
                "squared distances": """
                    place = torch.arange(side * side)
                    rows = place[:, None] // side - context // side
                    columns = place[:, None] % side - context % side
                    return tokens[:, (rows**2 + columns**2).argmin(dim=1)]
                """,
                "place by place": """
                    out = torch.empty(len(tokens), side * side, tokens.shape[2])
                    for place in range(side * side):
                        def far(i):
                            other = int(context[i])
                            return math.hypot(place // side - other // side, place % side - other % side)

                        out[:, place] = tokens[:, min(range(len(context)), key=far)]
                    return out
                """,
                "gather": """
                    y, x = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
                    places = torch.stack([y.flatten(), x.flatten()], dim=1).double()
                    nearest = torch.cdist(places, places[context]).topk(1, largest=False).indices  # (side², 1)
                    return tokens.gather(1, nearest.expand(len(tokens), -1, tokens.shape[2]))
                """,
            },
            "wrong": {
                "nearest number": ("place 6 lies under place 0", """
                    nearest = (torch.arange(side * side)[:, None] - context).abs().argmin(dim=1)
                    return tokens[:, nearest]
                """),
                "the farthest": ("a context place is nearest to itself", """
                    places = torch.cartesian_prod(torch.arange(side), torch.arange(side)).float()
                    return tokens[:, torch.cdist(places, places[context]).argmax(dim=1)]
                """),
                "wrong axis": ("out of bounds", """
                    places = torch.cartesian_prod(torch.arange(side), torch.arange(side)).float()
                    return tokens[:, torch.cdist(places, places[context]).argmin(dim=0)]
                """),
                "rows plus columns": ("the token of the nearest context place", """
                    places = torch.cartesian_prod(torch.arange(side), torch.arange(side)).float()
                    return tokens[:, torch.cdist(places, places[context], p=1).argmin(dim=1)]
                """),
                "a place for a token": ("out of bounds", """
                    places = torch.cartesian_prod(torch.arange(side), torch.arange(side)).float()
                    return tokens[:, context[torch.cdist(places, places[context]).argmin(dim=1)]]
                """),
                "always a grid of 8": ("place 6 lies under place 0", """
                    place = torch.arange(side * side)[:, None]
                    far = (place // 8 - context // 8) ** 2 + (place % 8 - context % 8) ** 2
                    return tokens[:, far.argmin(dim=1)]
                """),
                "columns alone": ("a context place is nearest to itself", """
                    column = torch.arange(side * side)[:, None] % side
                    return tokens[:, (column - context % side).abs().argmin(dim=1)]
                """),
                "hidden places only": ("a token for every place", """
                    places = torch.cartesian_prod(torch.arange(side), torch.arange(side)).float()
                    hidden = [place for place in range(side * side) if place not in context]
                    return tokens[:, torch.cdist(places[hidden], places[context]).argmin(dim=1)]
                """),
            },
        },
    },
    "10_your_own_pictures": {
        "threshold": {
            "right": {
                "down the list": """
                    pairs, best, seen, copies = sorted(zip(cosine.tolist(), copy.tolist())), float("inf"), 0, 0
                    while pairs:
                        c, is_copy = pairs.pop()
                        seen, copies = seen + 1, copies + is_copy
                        if copies / seen >= precision and not (pairs and pairs[-1][0] == c):
                            best = c
                    return torch.tensor(best)
                """,
                "up the list": """
                    for line in cosine.sort().values:
                        above = copy[cosine >= line]
                        if above.sum() >= precision * len(above):
                            return line
                    return torch.inf
                """,
                "a matrix": """
                    above = (cosine[None, :] >= cosine[:, None]).double()  # (P, P): a row for each line
                    share = above @ copy.double() / above.sum(dim=1)
                    return torch.where(share >= precision, cosine, torch.inf).min()
                """,
            },
            "wrong": {
                "None for infinity": ("so infinity", """
                    good = [c for c in cosine.unique() if copy[cosine >= c].float().mean() >= precision]
                    return min(good, default=None)
                """),
                "sorts copy in place": ("copy itself should not change", """
                    order = cosine.argsort(descending=True)
                    copy[:], c = copy[order], cosine[order]
                    share = copy.float().cumsum(0) / torch.arange(1, len(c) + 1)
                    last = torch.cat([c[1:] != c[:-1], torch.tensor([True])])
                    return min(c[(share >= precision) & last], default=torch.tensor(float("inf")))
                """),
                "stops at the first that fails": ("falls below 0.75 and rises again", """
                    best = torch.tensor(float("inf"))
                    for c in cosine.unique().flip(0):
                        if copy[cosine >= c].float().mean() < precision:
                            break
                        best = c
                    return best
                """),
                "the highest that serves": ("falls below 0.75 and rises again", """
                    good = [c for c in cosine.unique() if copy[cosine >= c].float().mean() >= precision]
                    return max(good, default=torch.tensor(float("inf")))
                """),
                "the pairs above it": ("of those at 0.95 or more", """
                    good = [c for c in cosine.unique() if copy[cosine > c].float().mean() >= precision]
                    return min(good, default=torch.tensor(float("inf")))
                """),
                "the lowest copy": ("of those at 0.95 or more", "return cosine[copy].min()"),
                "sorts the cosines alone": ("of those at 0.95 or more", """
                    cosine = cosine.sort(descending=True).values
                    share = copy.float().cumsum(0) / torch.arange(1, len(copy) + 1)
                    return min(cosine[share >= precision], default=torch.tensor(float("inf")))
                """),
                "sorts in place": ("itself should not change", """
                    order = cosine.argsort(descending=True)
                    cosine[:], copy = cosine[order], copy[order]
                    share = copy.float().cumsum(0) / torch.arange(1, len(copy) + 1)
                    return min(cosine[share >= precision], default=torch.tensor(float("inf")))
                """),
                "parts equal cosines": ("equal cosines go together", """
                    cosine, order = cosine.sort(descending=True, stable=True)
                    share = copy[order].float().cumsum(0) / torch.arange(1, len(copy) + 1)
                    return min(cosine[share >= precision], default=torch.tensor(float("inf")))
                """),
                "more than precision": ("enough for 0.5", """
                    good = [c for c in cosine.unique() if copy[cosine >= c].float().mean() > precision]
                    return min(good, default=torch.tensor(float("inf")))
                """),
            },
        },
        "farthest_first": {
            "right": {
                "a list": """
                    rows = [0]
                    while len(rows) < n:
                        left = [i for i in range(len(d)) if i not in rows]
                        rows.append(min(left, key=lambda i: max(float(d[i] @ d[j]) for j in rows)))
                    return rows
                """,
                "one matrix": """
                    cosine, rows = d @ d.T, torch.zeros(n, dtype=torch.long)
                    for i in range(1, n):
                        rows[i] = cosine[:, rows[:i]].max(dim=1).values.argmin()
                    return rows
                """,
                "distances": """
                    rows = [0]
                    for _ in range(1, n):
                        rows.append(int(torch.cdist(d, d[rows]).amin(dim=1).argmax()))
                    return torch.tensor(rows)
                """,
            },
            "wrong": {
                "begins with the farthest pair": ("start with row 0", """
                    rows = list(divmod(int((d @ d.T).argmin()), len(d)))
                    while len(rows) < n:
                        rows.append(int((d @ d[rows].mT).amax(dim=1).argmin()))
                    return torch.tensor(rows)
                """),
                "least like the last": ("not the last", """
                    rows = [0]
                    for _ in range(n - 1):
                        rows.append(int((d @ d[rows[-1]]).argmin()))
                    return torch.tensor(rows)
                """),
                "least like the first": ("to all chosen counts", """
                    return torch.cat([torch.tensor([0]), (d @ d[0]).argsort()[: n - 1]])
                """),
                "the smallest cosine counts": ("*largest* cosine", """
                    rows = [0]
                    for _ in range(n - 1):
                        closest = (d @ d[rows].mT).amin(dim=1)
                        closest[rows] = 2
                        rows.append(int(closest.argmin()))
                    return torch.tensor(rows)
                """),
                "the mean cosine counts": ("*largest* cosine", """
                    rows = [0]
                    for _ in range(n - 1):
                        closest = (d @ d[rows].mT).mean(dim=1)
                        closest[rows] = 2
                        rows.append(int(closest.argmin()))
                    return torch.tensor(rows)
                """),
                "most like before": ("take the least", "return (d @ d[0]).argsort(descending=True)[:n]"),
                "only sorts": ("start with row 0", "return (d @ d[0]).argsort()[:n]"),
                "begins with the most alike": ("start with row 0", """
                    rows = [int((d @ d.T).mean(dim=1).argmax())]
                    for _ in range(n - 1):
                        rows.append(int((d @ d[rows].mT).amax(dim=1).argmin()))
                    return torch.tensor(rows)
                """),
                "n besides row 0": ("n rows", """
                    rows = [0]
                    for _ in range(n):
                        rows.append(int((d @ d[rows].mT).amax(dim=1).argmin()))
                    return torch.tensor(rows)
                """),
            },
        },
    },
    "11_from_images_to_video": {
        "straight": {
            "right": {
                "float64": """
                    k = torch.linspace(1, steps, steps, dtype=torch.float64)[:, None, None]
                    return now + k * (now - before)
                """,
                "cumsum": "return now + (now - before).expand(steps, *now.shape).cumsum(dim=0)",
                "from before on": """
                    k = torch.arange(2, steps + 2).view(-1, 1, 1)
                    return before + k * (now - before)
                """,
                "einsum": """
                    k = torch.linspace(1, steps, steps)
                    return now + torch.einsum("k,nd->knd", k, now - before)
                """,
                "stack": "return torch.stack([now + k * (now - before) for k in range(1, steps + 1)])",
            },
            "wrong": {
                "begins with now": ("one step more", """
                    return now + torch.arange(steps)[:, None, None] * (now - before)
                """),
                "from before": ("one step more", """
                    return before + torch.arange(1, steps + 1)[:, None, None] * (now - before)
                """),
                "backwards": ("one step more", """
                    return now + torch.arange(1, steps + 1)[:, None, None] * (before - now)
                """),
                "one step each time": ("adds another step", "return (2 * now - before).expand(steps, *now.shape)"),
                "doubles the step": ("steps from now", """
                    return now + 2 ** torch.arange(steps)[:, None, None] * (now - before)
                """),
                "one frame short": ("steps first", """
                    return now + torch.arange(1, steps)[:, None, None] * (now - before)
                """),
                "steps second": ("steps first", """
                    k = torch.arange(1, steps + 1)[:, None]
                    return now[:, None] + k * (now - before)[:, None]
                """),
            },
        },
        "relaxed_best_of": {
            "right": {
                "weights": """
                    errors = (guess - target).square().mean(dim=-1)  # (K, N)
                    weights = torch.full_like(errors, epsilon / (len(errors) - 1))
                    weights.scatter_(0, errors.argmin(dim=0, keepdim=True), 1 - epsilon)
                    return (weights * errors).sum(dim=0).mean()
                """,
                "sorted": """
                    errors = ((guess - target) ** 2).mean(dim=2).sort(dim=0).values
                    return (1 - epsilon) * errors[0].mean() + epsilon * errors[1:].mean()
                """,
                "a part of the mean": """
                    K = len(guess)
                    share = epsilon * K / (K - 1)
                    return (1 - share) * best_of(guess, target) + share * F.mse_loss(guess, target.expand_as(guess))
                """,
                "sample by sample": """
                    K, N, D = guess.shape
                    total = 0
                    for n in range(N):
                        errors = [(guess[k, n] - target[n]).square().mean() for k in range(K)]
                        best = min(errors)
                        total = total + (1 - epsilon) * best + epsilon * (sum(errors) - best) / (K - 1)
                    return total / N
                """,
            },
            "wrong": {
                "the winner shares epsilon": ("equal weights", """
                    errors = (guess - target).square().mean(dim=-1)
                    return (1 - epsilon) * errors.amin(dim=0).mean() + epsilon * errors.mean()
                """),
                "epsilon for each of the others": ("equal weights", """
                    errors = (guess - target).square().mean(dim=-1)
                    best = errors.amin(dim=0)
                    return ((1 - epsilon) * best + epsilon * (errors.sum(dim=0) - best)).mean()
                """),
                "best and worst": ("equal weights", """
                    errors = (guess - target).square().mean(dim=-1)
                    return ((1 - epsilon) * errors.amin(dim=0) + epsilon * errors.amax(dim=0)).mean()
                """),
                "one winner for all": ("without epsilon", """
                    errors = (guess - target).square().mean(dim=(1, 2))  # (K,)
                    best = errors.min()
                    return (1 - epsilon) * best + epsilon * (errors.sum() - best) / (len(errors) - 1)
                """),
                "wrong axis": ("without epsilon", """
                    errors = (guess - target).square().mean(dim=-1)
                    best = errors.amin(dim=1)
                    others = (errors.sum(dim=1) - best) / (errors.shape[1] - 1)
                    return ((1 - epsilon) * best + epsilon * others).mean()
                """),
                "weights swapped": ("without epsilon", """
                    errors = (guess - target).square().mean(dim=-1)
                    best = errors.amin(dim=0)
                    others = (errors.sum(dim=0) - best) / (len(errors) - 1)
                    return (epsilon * best + (1 - epsilon) * others).mean()
                """),
                "a winner for each dimension": ("without epsilon", """
                    errors = (guess - target).square()
                    best = errors.amin(dim=0)
                    return ((1 - epsilon) * best + epsilon * (errors.sum(dim=0) - best) / (len(errors) - 1)).mean()
                """),
                "losers get no gradient": ("losers learn a little", """
                    errors = (guess - target).square().mean(dim=-1)
                    best = errors.amin(dim=0)
                    others = (errors.sum(dim=0) - best) / (len(errors) - 1)
                    return ((1 - epsilon) * best + epsilon * others.detach()).mean()
                """),
                "one number per sample": ("one number", """
                    errors = (guess - target).square().mean(dim=-1)
                    best = errors.amin(dim=0)
                    return (1 - epsilon) * best + epsilon * (errors.sum(dim=0) - best) / (len(errors) - 1)
                """),
            },
        },
    },
}
