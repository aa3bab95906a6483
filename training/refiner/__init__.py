"""Generated and real images -> weights of a refiner: `training refiner`."""
