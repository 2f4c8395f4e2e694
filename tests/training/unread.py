"""What a program must do without where it is not to wait for its device."""

import torch
from torch.utils._python_dispatch import TorchDispatchMode


class Unread(TorchDispatchMode):
    """Refuses what would make a program wait for its device; a copy from one device to another does."""

    waits = (torch.ops.aten._local_scalar_dense, torch.ops.aten.nonzero, torch.ops.aten.is_nonzero)
    copies = (torch.ops.aten._to_copy, torch.ops.aten.copy_)

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        assert function.overloadpacket not in self.waits, f"{function} waits for the device"
        result = function(*args, **(kwargs or {}))
        if function.overloadpacket in self.copies:
            source = args[1] if function.overloadpacket is torch.ops.aten.copy_ else args[0]
            assert source.device == result.device, f"{function} from {source.device} to {result.device} waits for it"
        return result
