"""ConvMixer as a translator: a depthwise, then a pointwise convolution (Trockman and Kolter, TMLR 2023, section 2)."""

from torch import Tensor, nn

from stzoo.models.metaformers.parts import BlockPlace

KERNEL = 11


class ConvMixerBlock(nn.Module):
    """x + BN(GELU(depthwise 11x11 (x))), then BN(GELU(1x1 (x))), equations 2 and 3. Only the first is residual."""

    def __init__(self, place: BlockPlace):
        super().__init__()
        self.conv_dw = nn.Conv2d(place.dim, place.dim, KERNEL, padding=KERNEL // 2, groups=place.dim)
        self.norm_1 = nn.BatchNorm2d(place.dim)
        self.conv_pw = nn.Conv2d(place.dim, place.dim, 1)
        self.norm_2 = nn.BatchNorm2d(place.dim)
        self.act = nn.GELU()

    def forward(self, x: Tensor) -> Tensor:
        """(B, dim, h, w) -> (B, dim, h, w)."""
        x = x + self.norm_1(self.act(self.conv_dw(x)))
        return self.norm_2(self.act(self.conv_pw(x)))
